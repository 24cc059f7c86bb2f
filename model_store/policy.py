"""What the owner of a model asks of its compilation: outside text, so validated by pydantic, unknown keys refused.

Stored with the version as plain JSON; the compile walk reads it back with `Policy.model_validate`.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

Technique = Literal[
    "fusion", "int8", "weight-only", "mixed-precision", "prune", "sparse", "low-rank", "distil", "log"
]  # fmt: skip


class InvalidPolicy(ValueError):
    """The policy is not one; the message names every fault and, for an unknown key, the nearest known one."""


class Gate(BaseModel):
    """Thresholds a variant must keep. Naming any of them replaces the defaults of its precision *as a whole*.

    cosine: least cosine similarity, first percentile over the samples. sqnr_db: least mean signal-to-noise ratio.
    top1: least Wilson 95 % lower bound of top-1 agreement. max_drop: greatest fall of label accuracy (0.01 = a point).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    cosine: Annotated[float, Field(ge=-1, le=1)] | None = None
    sqnr_db: float | None = None
    top1: Annotated[float, Field(ge=0, le=1)] | None = None
    max_drop: Annotated[float, Field(ge=0, le=1)] | None = None

    @property
    def given(self) -> bool:
        return any(value is not None for value in (self.cosine, self.sqnr_db, self.top1, self.max_drop))


class Policy(BaseModel):
    """One model's policy; every field has a default that suits most models."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    objective: Literal["latency", "throughput", "size"] = "latency"
    """What decides among variants proven faster than the reference: speed-up for the rows of a batch, speed-up at the
    most rows measured, or bytes."""
    targets: tuple[str, ...] | None = None
    techniques: tuple[Technique, ...] | None = None
    gate: Gate = Gate()
    budget_seconds: Annotated[float, Field(gt=0, le=86_400)] = 900.0
    rows: Annotated[tuple[Annotated[int, Field(ge=1, le=4096)], ...], Field(min_length=1, max_length=8)] = (1, 8, 32)
    serve_unproven: bool = False
    """Route to lossy variants even though no samples prove them (they stay `inconclusive` in words)."""


def parse_policy(data: Mapping[str, Any]) -> Policy:
    """Validate outside data. Raises InvalidPolicy naming every fault."""
    try:
        return Policy.model_validate(data)
    except ValidationError as exc:
        raise InvalidPolicy("; ".join(_fault(error) for error in exc.errors())) from None


def _fault(error: Any) -> str:
    where = ".".join(str(part) for part in error["loc"])
    if error["type"] != "extra_forbidden":
        return f"policy {where}: {error['msg']}"
    known = list(Gate.model_fields if error["loc"][0] == "gate" else Policy.model_fields)
    close = difflib.get_close_matches(str(error["loc"][-1]), known, n=1)
    return f"policy has no key {where!r}; " + (f"did you mean {close[0]!r}?" if close else f"keys: {', '.join(known)}")
