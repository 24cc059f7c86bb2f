"""What the owner of a model asks of its compilation: outside text, so validated by pydantic, unknown keys refused.

Stored with the version as plain JSON; the compile walk reads it back with `Policy.model_validate`. Every key is
described in docs/policy.md, which a test holds against the fields here.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from model_store.expression import Expression

Technique = Literal[
    "fusion", "int8", "weight-only", "mixed-precision", "prune", "sparse", "low-rank", "distil", "log"
]  # fmt: skip
Objective = Literal["latency", "throughput", "size", "memory"]
Rows = Annotated[int, Field(ge=1, le=4096)]

DEFAULT_PRIORITY = 5


class InvalidPolicy(ValueError):
    """The policy is not one; the message names every fault and, for an unknown key, the nearest known one."""


class Metric(BaseModel):
    """The owner's own figure: an expression over one sample (see model_store.expression), judged by its mean.

    Either `least` or `most` bounds the mean; its 95 % interval must lie on the right side.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    expression: str
    least: Annotated[float, Field(allow_inf_nan=False)] | None = None
    most: Annotated[float, Field(allow_inf_nan=False)] | None = None

    @field_validator("expression")
    @classmethod
    def _parses(cls, text: str) -> str:
        Expression(text)
        return text

    @model_validator(mode="after")
    def _one_bound(self) -> Metric:
        if (self.least is None) == (self.most is None):
            raise ValueError("a metric has one bound: `least` or `most`")
        return self


class Gate(BaseModel):
    """Thresholds a variant must keep. Naming any of them replaces the defaults of its precision *as a whole*.

    cosine: least cosine similarity, first percentile over the samples. sqnr_db: least mean signal-to-noise ratio.
    top1: least Wilson 95 % lower bound of top-1 agreement. max_drop: greatest fall of label accuracy (0.01 = a point).
    metric: the owner's own.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    cosine: Annotated[float, Field(ge=-1, le=1)] | None = None
    sqnr_db: float | None = None
    top1: Annotated[float, Field(ge=0, le=1)] | None = None
    max_drop: Annotated[float, Field(ge=0, le=1)] | None = None
    metric: Metric | None = None

    @property
    def given(self) -> bool:
        return any(getattr(self, name) is not None for name in type(self).model_fields)


class Search(BaseModel):
    """How recipes beyond the first candidates are looked for, within the policy's budget.

    effort: `off`; `auto` rescues a precision that failed the gate and tunes one that gains little; `full` tunes all.
    sampler: `auto` takes nsga2 for two objectives, grid for small spaces, random for few trials, else tpe.
    patience: trials without a gain after which a search ends.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    effort: Literal["off", "auto", "full"] = "auto"
    sampler: Literal["auto", "grid", "random", "tpe", "nsga2"] = "auto"
    seed: Annotated[int, Field(ge=0, lt=1 << 32)] = 0
    patience: Annotated[int, Field(ge=1, le=1000)] = 6


class Policy(BaseModel):
    """One model's policy; every field has a default that suits most models."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    objective: Objective = "latency"
    """What decides among variants proven faster than the reference: speed-up for the rows of a batch, speed-up at the
    most rows measured, bytes, or memory."""
    second_objective: Objective | None = None
    """The search then keeps what is best in either and between (a Pareto front); `objective` alone routes."""
    targets: tuple[str, ...] | None = None
    techniques: tuple[Technique, ...] | None = None
    gate: Gate = Gate()
    budget_seconds: Annotated[float, Field(gt=0, le=86_400)] = 900.0
    budget_trials: Annotated[int, Field(ge=0, le=1000)] = 24
    """The most recipes a search tries for each precision of a target."""
    search: Search = Search()
    rows: Annotated[tuple[Rows, ...], Field(min_length=1, max_length=8)] = (1, 8, 32)
    """Batch sizes that are compared and timed: the buckets that routing knows."""
    latency_rows: Rows | None = None
    """Rows whose latency the search minimises, measured as one of `rows`. Default: the fewest and the most of them."""
    priority: Annotated[int, Field(ge=0, le=9)] = DEFAULT_PRIORITY
    """Of its compile jobs: lower numbers first."""
    serve_unproven: bool = False
    """Route to lossy variants even though no samples prove them (they stay `inconclusive` in words)."""

    @model_validator(mode="after")
    def _two_objectives(self) -> Policy:
        if self.second_objective == self.objective:
            raise ValueError(f"`second_objective` must differ from `objective` ({self.objective!r})")
        if self.search.sampler == "nsga2" and self.second_objective is None:
            raise ValueError("the sampler nsga2 needs two objectives: name a `second_objective`")
        return self

    @property
    def timed_rows(self) -> tuple[int, ...]:
        """Batch sizes to measure, ascending."""
        return tuple(sorted({*self.rows, *(() if self.latency_rows is None else (self.latency_rows,))}))

    def rows_of(self, objective: str) -> tuple[int, ...]:
        """The batch sizes at which a search measures an objective, ascending."""
        if objective == "throughput":
            return (self.timed_rows[-1],)
        if self.latency_rows is not None:
            return (self.latency_rows,)
        return tuple(sorted({self.timed_rows[0], self.timed_rows[-1]}))


def parse_policy(data: Mapping[str, Any]) -> Policy:
    """Validate outside data. Raises InvalidPolicy naming every fault."""
    try:
        return Policy.model_validate(data)
    except ValidationError as exc:
        raise InvalidPolicy("; ".join(_fault(error) for error in exc.errors())) from None


_INSIDE: dict[tuple[str, ...], type[BaseModel]] = {
    (): Policy,
    ("gate",): Gate,
    ("gate", "metric"): Metric,
    ("search",): Search,
}
"""Where a key stands -> the model that says which keys may stand there."""


def _fault(error: Any) -> str:
    path = tuple(str(part) for part in error["loc"])
    where = ".".join(path)
    if error["type"] != "extra_forbidden":
        return f"policy {where}: {error['msg']}" if where else f"policy: {error['msg']}"
    known = list(_INSIDE.get(path[:-1], Policy).model_fields)
    close = difflib.get_close_matches(path[-1], known, n=1)
    return f"policy has no key {where!r}; " + (f"did you mean {close[0]!r}?" if close else f"keys: {', '.join(known)}")
