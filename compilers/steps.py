"""The dangerous part of compiling, one step a child: `python -m compilers.steps STEP request.json name=path ...`.

A step is a pure function of its parameters (`request.json`) and of the bytes of its inputs (`name=path`). It writes
`answer.json` beside the files it made, in the folder it was started in. What a runtime or a pass refuses is an answer
too (`refused`, in words); any other end of the child is for the parent to explain.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from compilers import hardware
from compilers.feed import Feed
from compilers.proving import accuracy, probing
from compilers.proving.compare import Comparison, Mismatch
from compilers.proving.gate import Bounds, Finding
from compilers.proving.recording import Recorder, Recording
from compilers.samples import Samples, chunks, split
from compilers.structure import structure
from compilers.targets import Session, TargetFailed, load_target
from compilers.timing import measure as timing
from model_store.entities import Signature
from model_store.expression import Expression, InvalidExpression

ANSWER = "answer.json"

RANKED_SAMPLES, RANKED_ROWS = 16, 8

Params = Mapping[str, Any]
Inputs = Mapping[str, Path]


class Refused(Exception):
    """The step's own work cannot be done, for a reason that lies in the model: told in words."""


@dataclass(frozen=True, slots=True)
class Answer:
    """`files`: artifact file name -> path, inside the work folder or one of the inputs."""

    result: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    refused: str | None = None
    peak_memory_bytes: int = 0


def probe(params: Params, inputs: Inputs) -> Answer:
    """Open the canonical model as the reference and see how it behaves."""
    signature = msgspec.convert(params["signature"], Signature)
    samples = Samples.load(inputs["samples"], signature) if "samples" in inputs else None
    found = probing.probe(open_artifact(params, inputs), signature, samples)
    return Answer(result=msgspec.to_builtins(found))


def calibrate(params: Params, inputs: Inputs) -> Answer:
    """Gather what the calibration samples make the model's tensors hold: once, for every recipe that starts from it."""
    import onnx
    import onnx_ir as ir

    from compilers.calibration.calibrate import calibrate as gather
    from compilers.calibration.spool import spool
    from compilers.passes.int8_static import usual_tensors
    from compilers.passes.shapes import with_shapes

    samples = spool(inputs["samples"], msgspec.convert(params["signature"], Signature), Path.cwd())
    model = ir.from_proto(with_shapes(onnx.load(inputs["model"])))
    path, tensors = Path("statistics.npz"), usual_tensors(model)
    gather(model, samples, path, tensors=tensors, grams=params["grams"])
    return Answer(result={"tensors": len(tensors)}, files={"statistics.npz": "statistics.npz"})


def transform(params: Params, inputs: Inputs) -> Answer:
    """Run a recipe's passes over the model; calibration samples and their statistics are all that they may see."""
    import onnx

    from compilers.anatomy import anatomy
    from compilers.calibration.spool import spool
    from compilers.calibration.statistics import Statistics
    from compilers.passes import PassFailed, run_passes
    from compilers.passes.regions import regions
    from compilers.recipe import PassSpec

    calibration = None
    if params["calibrated"]:
        calibration = spool(inputs["samples"], msgspec.convert(params["signature"], Signature), Path.cwd())
    specs = [PassSpec(name=spec["name"], params=spec["params"]) for spec in params["passes"]]
    statistics = Statistics(inputs["statistics"]) if "statistics" in inputs else None
    try:
        model = run_passes(onnx.load(inputs["model"]), specs, calibration, statistics)
    except PassFailed as exc:
        raise Refused(str(exc)) from exc
    onnx.save(model, "model.onnx")
    macs, shares = anatomy(model, params["sizes"])
    result = measure_graph(model) | {"macs": macs, "precision_share": shares}
    if any(spec.name == "int8-static" for spec in specs):
        result["regions"] = msgspec.to_builtins(regions(model))
    return Answer(result=result, files={"model.onnx": "model.onnx"})


def build(params: Params, inputs: Inputs) -> Answer:
    """Build the transformed model for a target."""
    built = load_target(params["target"]).build(inputs["model"], Path.cwd(), params["options"])
    return Answer(
        result={"options": dict(built.options)}, files={name: str(path) for name, path in built.files.items()}
    )


def outputs(params: Params, inputs: Inputs) -> Answer:
    """Run the reference over the validation samples and keep what it answers, within `most_bytes` and `seconds`."""
    session = open_artifact(params, inputs)
    deadline, samples = time.monotonic() + params["seconds"], 0
    with Recorder(Path("outputs.npz")) as recorder:
        for run in _feed(params, inputs).runs(params["rows"]):
            recorder.add(session.run(run.inputs))
            samples += len(run.samples)
            if recorder.size > params["most_bytes"] or time.monotonic() > deadline:
                break
    return Answer(result={"samples": samples}, files={"outputs.npz": "outputs.npz"})


def agree(params: Params, inputs: Inputs) -> Answer:
    """Run a variant over the same samples in the same runs and compare with what the reference answered.

    Against `bounds` the first samples may decide (compilers/proving/accuracy.py); `decided` then says how, after
    `samples`.
    """
    session = open_artifact(params, inputs)
    recording = Recording(inputs["outputs"])
    metric = None if params["metric"] is None else Expression(params["metric"])
    comparison = Comparison(rowwise=params["rowwise"], metric=metric)
    bounds, until = msgspec.convert(params["bounds"], Bounds), accuracy.Until(params["until"])
    samples, look = 0, accuracy.next_look(0)
    decided: Finding | None = None
    for index, run in zip(range(recording.runs), _feed(params, inputs).runs(params["rows"]), strict=False):
        comparison.add(recording.outputs(index), session.run(run.inputs), run.samples, run.labels)
        samples += len(run.samples)
        if look is not None and samples >= look and index + 1 < recording.runs:
            decided, look = accuracy.clear(comparison, bounds), accuracy.next_look(samples)
            if decided is Finding.FAILED or (decided is not None and until is accuracy.Until.DECIDED):
                break
            decided = None
    return Answer(result={"agreement": msgspec.to_builtins(comparison.agreement()), "decided": decided})


def measure(params: Params, inputs: Inputs) -> Answer:
    """Time a variant against the reference, each in a child of its own, in turns."""
    return Answer(result=msgspec.to_builtins(timing.measure(params, inputs)))


def sensitivity(params: Params, inputs: Inputs) -> Answer:
    """Rank the nodes of a float model by what lowering each alone costs, on a few calibration samples."""
    import onnx

    from compilers.search.sensitivity import measure_sensitivity

    samples = Samples.load(inputs["samples"], msgspec.convert(params["signature"], Signature))
    chosen = split(samples.count).calibration[:RANKED_SAMPLES]
    runs = [samples.take(indices) for indices in chunks(chosen, (RANKED_ROWS if params["rowwise"] else 1,))]
    target = load_target("ort-cpu")
    found = measure_sensitivity(
        onnx.load(inputs["model"]),
        runs,
        lambda path: target.open({"model.onnx": path}, {}, params["threads"]),
        params["kinds"],
        params["seconds"],
        params["precision"],
    )
    return Answer(result=msgspec.to_builtins(found))


def plan(params: Params, inputs: Inputs) -> Answer:
    """See what settings and batch sizes are worth, and choose."""
    from compilers.timing.curves import measured_plan

    return Answer(result={"plan": msgspec.to_builtins(measured_plan(params, inputs))})


STEPS: dict[str, Callable[[Params, Inputs], Answer]] = {
    step.__name__: step for step in (probe, calibrate, transform, build, outputs, agree, sensitivity, measure, plan)
}


def open_artifact(params: Params, inputs: Inputs, prefix: str = "artifact/") -> Session:
    files = {name.removeprefix(prefix): path for name, path in inputs.items() if name.startswith(prefix)}
    threads = min(params["threads"], hardware.usable_cores())  # a step that keeps to fewer cores than there are
    return load_target(params["target"]).open(files, params["options"], threads, params.get("instances", 1))


def measure_graph(model: Any) -> dict[str, Any]:
    """Weights of a transformed model, and of its Conv, MatMul and Gemm nodes how many compute on quantized tensors."""
    quantized_by = {output for node in model.graph.node if node.op_type == "DequantizeLinear" for output in node.output}
    heavy: dict[str, list[int]] = {}
    for node in model.graph.node:
        plain = {"ConvInteger": "Conv", "QLinearConv": "Conv", "MatMulInteger": "MatMul", "QLinearMatMul": "MatMul"}
        kind = plain.get(node.op_type, node.op_type)
        if kind in ("Conv", "MatMul", "Gemm"):
            counts = heavy.setdefault(kind, [0, 0])
            counts[0] += 1
            counts[1] += kind != node.op_type or any(name in quantized_by for name in node.input)
    scales = {name for node in model.graph.node if node.op_type in _LINEAR for name in node.input[1:]}
    weights = sum(int(np.prod(weight.dims)) for weight in model.graph.initializer if weight.name not in scales)
    quantized = {kind: tuple(counts) for kind, counts in heavy.items()}
    return {"structure": structure(model), "parameters": weights, "quantized": quantized}


_LINEAR = frozenset(("QuantizeLinear", "DequantizeLinear"))


def _feed(params: Params, inputs: Inputs) -> Feed:
    signature = msgspec.convert(params["signature"], Signature)
    return Feed.of(signature, inputs.get("samples"), params["guess"], rowwise=params["rowwise"])


def arguments(argv: list[str]) -> tuple[dict[str, Any], dict[str, Path]]:
    """`request.json name=path ...` -> parameters and inputs."""
    request, *named = argv
    pairs = (item.partition("=") for item in named)
    return msgspec.json.decode(Path(request).read_bytes()), {name: Path(path) for name, _, path in pairs}


def peak_memory_bytes() -> int:
    """The most memory this process ever held. `ru_maxrss` would also count what the parent held when it forked."""
    status = Path("/proc/self/status").read_text()
    return next((int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM")), 0)


def main() -> None:
    step, *rest = sys.argv[1:]
    try:
        answer = STEPS[step](*arguments(rest))
    except (Refused, TargetFailed, Mismatch, probing.Unrunnable, timing.Untimeable) as exc:
        answer = Answer(refused=str(exc))
    except InvalidExpression as exc:
        answer = Answer(refused=f"the policy's metric has no value: {exc}")
    except timing.Died as exc:
        sys.exit(str(exc))
    Path(ANSWER).write_bytes(msgspec.json.encode(replace(answer, peak_memory_bytes=peak_memory_bytes())))


if __name__ == "__main__":
    main()
