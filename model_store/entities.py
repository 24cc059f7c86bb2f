"""What exists: the nouns of the product, frozen, without behaviour that touches the outside.

Words are those of the design: a *Model* has *ModelVersions*; a version is compiled by *Jobs* into *Variants*
(version x recipe x target); a variant has an *Artifact* (built bytes), *Evidence* (what was measured), a *Plan*
(how to run it) and a *Verdict* with its reason in words.

Everything here is plain data that `msgspec.to_builtins` writes and `msgspec.convert` reads back unchanged, so the
catalog, the API and the reports share one shape. Times are seconds (durations) or POSIX seconds (moments).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

Digest = str
"""Lower-case hexadecimal sha256 of the bytes it names (64 characters)."""

REFERENCE = "reference"
"""Id and recipe of the reference variant: the uploaded model itself in ONNX Runtime on CPU, fp32."""


class VersionStatus(StrEnum):
    """Where a version is on its way: `compiling` and `ready` answer requests, the others do not."""

    REGISTERED = "registered"
    COMPILING = "compiling"
    READY = "ready"
    FAILED = "failed"


class Verdict(StrEnum):
    """What the evidence says of a variant.

    serving: proven right and proven faster than the reference in at least one bucket (the reference itself: always).
    eligible: proven right, not proven faster; answers only when pinned.
    inconclusive: the samples cannot prove it right (none, or too few).
    rejected: proven wrong, failed to build, or crashed its child.
    """

    SERVING = "serving"
    ELIGIBLE = "eligible"
    INCONCLUSIVE = "inconclusive"
    REJECTED = "rejected"


class JobKind(StrEnum):
    """`reference` publishes the uploaded model itself; `compile` builds every variant of one target."""

    REFERENCE = "reference"
    COMPILE = "compile"


class JobState(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        return self in (JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED)


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One input or output. `datatype` is a V2 name (FP32, INT64, BYTES, ...); -1 in `shape` is a dynamic axis."""

    name: str
    datatype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Signature:
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    @property
    def has_batch_axis(self) -> bool:
        """True when every input and output has a dynamic first axis: rows *may* be batched (proof is separate)."""
        return bool(self.inputs and self.outputs) and all(
            spec.shape and spec.shape[0] == -1 for spec in (*self.inputs, *self.outputs)
        )


@dataclass(frozen=True, slots=True)
class Model:
    name: str
    created_at: float
    versions: tuple[str, ...]
    aliases: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """One uploaded model, immutable but for `status` and `reason`."""

    name: str
    version: str
    status: VersionStatus
    reason: str
    model: Digest
    size_bytes: int
    signature: Signature
    samples: Digest | None
    policy: Mapping[str, Any]
    parameters: int
    """Number of weights."""
    operators: Mapping[str, int]
    """Operator type -> how many nodes have it."""
    created_at: float


@dataclass(frozen=True, slots=True)
class Artifact:
    """Built bytes of a variant: file name -> blob. `options` are the target's own (precision, ...), always explicit."""

    files: Mapping[str, Digest]
    options: Mapping[str, Any]
    size_bytes: int
    stored_bytes: int | None = None
    """What the files take in the store where they were packed; None: they lie there as they are."""


@dataclass(frozen=True, slots=True)
class OutputAgreement:
    """Agreement of one output over the validation samples. 200 dB stands for bit-equality (JSON has no infinity)."""

    sqnr_db: float
    sqnr_p5_db: float
    cosine: float
    cosine_p1: float
    max_abs_error: float


@dataclass(frozen=True, slots=True)
class Agreement:
    """A variant's outputs against the reference's on samples that did not calibrate it.

    The top-level figures are those of the worst output. `top1*` only for classifier-like outputs, `label_accuracy*`
    only when the samples carry labels. `top1_lower` is the lower end of the Wilson 95 % interval.
    """

    samples: int
    sqnr_db: float
    sqnr_p5_db: float
    cosine: float
    cosine_p1: float
    worst_sample: int
    outputs: Mapping[str, OutputAgreement]
    top1: float | None = None
    top1_lower: float | None = None
    label_accuracy: float | None = None
    reference_label_accuracy: float | None = None
    label_drop_upper: float | None = None
    """Upper end of the 95 % interval of (reference accuracy - variant accuracy), paired over the samples."""
    metric: float | None = None
    """Mean of the policy's own expression over the samples, with the ends of its 95 % interval."""
    metric_lower: float | None = None
    metric_upper: float | None = None


@dataclass(frozen=True, slots=True)
class Timing:
    """Time of one run at `rows` rows, interleaved with the reference. `speedup` is reference / variant."""

    rows: int
    p50_s: float
    p90_s: float
    p99_s: float
    reference_p50_s: float
    speedup: float
    speedup_lower: float
    speedup_upper: float
    runs: int


@dataclass(frozen=True, slots=True)
class Evidence:
    agreement: Agreement | None
    timings: tuple[Timing, ...]
    hardware: Mapping[str, str]
    versions: Mapping[str, str] = field(default_factory=dict)
    peak_memory_bytes: int | None = None
    noise_sqnr_db: float | None = None
    """The reference's agreement with itself, run to run."""
    gate: Mapping[str, float] = field(default_factory=dict)
    """What the agreement was held against: `sqnr_db`, `cosine`, `top1`, `max_drop`; absent: not asked."""
    macs: int | None = None
    """Multiply-accumulates of one row (axes nobody fixed at the sizes of the samples); None: not known."""
    precision_share: Mapping[str, float] = field(default_factory=dict)
    """Precision (f32, bf16, int8, int8-weights, ...) -> its share of the multiply-accumulates, 0 to 1."""
    calibration: Mapping[str, Any] = field(default_factory=dict)
    """What calibrated it: `samples` (sha256), `count`, `calibration`, `validation`, `passes`; empty: nothing did."""
    sensitivity: Mapping[str, float] = field(default_factory=dict)
    """Node -> SQNR in dB of the outputs when that node alone is quantized; lower is more sensitive."""
    recipe: Mapping[str, Any] = field(default_factory=dict)
    """What made it: `passes` (name and parameters, in order); of one that a search found also its `base` candidate and
    the `choice` of every knob."""
    regions: Mapping[str, Any] = field(default_factory=dict)
    """Of static int8 as ONNX Runtime runs it: `nodes`, `integer` (kernels by operator), `stray` (conversions between
    float and int8 left standing); empty: not counted."""


@dataclass(frozen=True, slots=True)
class PlanPoint:
    """What one setting was measured to do at one batch size: `instances` batches at a time, `threads` threads each.

    `p50_s` is the time of one batch among the others, `rows_per_s` what all instances answer together.
    """

    threads: int
    instances: int
    rows: int
    p50_s: float
    rows_per_s: float


@dataclass(frozen=True, slots=True)
class Plan:
    """How to run a variant here. `max_rows` is 1 when requests must not be batched together.

    `instances` batches run at the same time, each with `threads` threads. `buckets`: batch sizes at which gathering
    more still paid, ascending; the last one is the most a batch gathers (none: not seen to stop, up to `max_rows`).
    `padded`: those of them to which filling a batch up was measured to win. `reason` says why, with the figures of
    `curve`.
    """

    threads: int
    max_rows: int
    instances: int = 1
    buckets: tuple[int, ...] = ()
    padded: tuple[int, ...] = ()
    objective: str = "latency"
    reason: str = ""
    curve: tuple[PlanPoint, ...] = ()


@dataclass(frozen=True, slots=True)
class Variant:
    """`id` is unique within its version: `reference`, or `<target>.<recipe>` such as `openvino-cpu.int8`."""

    id: str
    name: str
    version: str
    recipe: str
    target: str
    techniques: tuple[str, ...]
    parameters: int
    size_bytes: int
    verdict: Verdict
    reason: str
    artifact: Artifact | None
    evidence: Evidence | None
    plan: Plan | None
    created_at: float


@dataclass(frozen=True, slots=True)
class Job:
    """One unit of compile work, leased to a worker. `token` rises with every claim and fences every write."""

    id: str
    name: str
    version: str
    kind: JobKind
    target: str
    request: Mapping[str, Any]
    state: JobState
    attempt: int
    token: int
    lease_until: float
    worker: str | None
    error: str | None
    created_at: float
    started_at: float | None
    finished_at: float | None
    priority: int = 5
    """Among jobs of one kind the lower number is claimed first."""


@dataclass(frozen=True, slots=True)
class JobEvent:
    """One line of a job's log. `step` names the step, `status` is started|progress|done|failed|log."""

    seq: int
    job: str
    at: float
    step: str
    status: str
    text: str
    data: Mapping[str, Any] = field(default_factory=dict)
