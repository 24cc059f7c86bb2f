"""The transformations a recipe is made of: one idea a file, chosen from a table, each an `onnx_ir` pass.

A pass declares its need (`requires`) and its promise (`ensures`) and says honestly whether it changed anything. Passes
see graphs and calibration tensors: never a target, the store or the clock. The table maps a name to an import string,
so that nothing heavy (NNCF, the quantizers) is imported until a recipe asks for it.
"""

from __future__ import annotations

import difflib
import hashlib
import importlib
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compilers.calibration import Calibration

if TYPE_CHECKING:
    import onnx
    import onnx_ir as ir

    from compilers.calibration.statistics import Statistics
    from compilers.recipe import PassSpec

PASSES: dict[str, str] = {
    "clean-up": "compilers.passes.clean_up:CleanUp",
    "fold-constants": "compilers.passes.fold_constants:FoldConstants",
    "fold-batch-norm": "compilers.passes.fold_batch_norm:FoldBatchNorm",
    "raise-opset": "compilers.passes.raise_opset:RaiseOpset",
    "smooth-quant": "compilers.passes.smooth_quant:SmoothQuant",
    "int8-dynamic": "compilers.passes.int8_dynamic:QuantizeDynamic",
    "int8-static": "compilers.passes.int8_static:QuantizeStatic",
    "int8-nncf": "compilers.passes.int8_nncf:QuantizeNncf",
    "weight-only": "compilers.passes.weight_only:QuantizeWeights",
    "log-quantize": "compilers.passes.log_quantize:LogQuantize",
    "cast": "compilers.passes.cast:CastPrecision",
}

CALIBRATED = frozenset({"smooth-quant", "int8-static", "int8-nncf"})
"""Passes whose constructor takes `calibration`, whatever their parameters."""

OBSERVED = frozenset({"smooth-quant", "int8-static"})
"""Of these, the ones that also take `statistics` (compilers.calibration) and look up themselves only what it lacks."""


class UnknownPass(LookupError):
    """No pass of that name; the message holds the nearest one."""


class PassFailed(RuntimeError):
    """A pass refused the model or broke on it; the message names the pass and says why."""


def takes_samples(spec: PassSpec) -> bool:
    """Whether the pass, with these parameters, works from calibration samples."""
    return spec.name in CALIBRATED or _by_parameters(spec)


def takes_statistics(spec: PassSpec) -> bool:
    """Whether it also takes what was observed on them before."""
    return spec.name in OBSERVED or _by_parameters(spec)


def _by_parameters(spec: PassSpec) -> bool:
    """Rounding by Gram matrices needs them; a cast looks at ranges unless its type holds whatever float32 does."""
    cast = spec.name == "cast" and spec.params.get("precision") != "bf16"
    return cast or (spec.name == "weight-only" and spec.params.get("rounding") == "gptq")


def load_pass(
    spec: PassSpec, calibration: Calibration | None = None, statistics: Statistics | None = None
) -> ir.passes.PassBase:
    """Import and construct a pass. Raises UnknownPass; PassFailed when it needs samples or has no such parameter."""
    module, _, attribute = import_string(spec.name).partition(":")
    arguments: dict[str, Any] = dict(spec.params)
    if takes_samples(spec):
        if not calibration or not all(len(array) for array in calibration.values()):
            raise PassFailed(f"{spec.name}: needs calibration samples, and there are none")
        arguments["calibration"] = calibration
    if takes_statistics(spec) and statistics is not None:
        arguments["statistics"] = statistics
    try:
        made: ir.passes.PassBase = getattr(importlib.import_module(module), attribute)(**arguments)
    except TypeError as exc:
        raise PassFailed(f"{spec.name}: {exc}") from exc
    return made


def run_passes(
    model: onnx.ModelProto | ir.Model,
    specs: Sequence[PassSpec],
    calibration: Calibration | None = None,
    statistics: Statistics | None = None,
) -> onnx.ModelProto:
    """Run the passes in order. Raises PassFailed when one cannot do its work; `model` itself is left as it was.

    statistics: of `model` itself; what passes look up otherwise is gone with them.
    """
    import onnx
    import onnx_ir as ir

    current = ir.from_proto(model) if isinstance(model, onnx.ModelProto) else model.clone()
    del model  # a caller that keeps none of it pays for its weights once
    for spec in specs:
        try:
            current = load_pass(spec, calibration, statistics)(current).model
        except (PassFailed, UnknownPass):
            raise
        except Exception as exc:  # a pass drives foreign code that raises anything; the caller gets one kind, in words
            raise PassFailed(f"{spec.name}: {exc or type(exc).__name__}") from exc
    return ir.to_proto(current)


def import_string(name: str) -> str:
    """The table's entry. Raises UnknownPass with the nearest name."""
    if name not in PASSES:
        close = difflib.get_close_matches(name, PASSES, n=1)
        raise UnknownPass(
            f"no pass {name!r}; " + (f"did you mean {close[0]!r}?" if close else f"there are {', '.join(PASSES)}")
        )
    return PASSES[name]


def source_digest(name: str) -> str:
    """sha256 of the pass's source and of what all passes share, so that editing one invalidates what it made."""
    folder = Path(__file__).parent
    own = folder / f"{import_string(name).partition(':')[0].rpartition('.')[2]}.py"
    shared = [folder / module for module in ("constants.py", "gemm.py", "graph.py", "kinds.py", "shapes.py")]
    if name in CALIBRATED or name in ("cast", "weight-only"):
        shared += [folder / module for module in ("absorb.py", "bias_correction.py", "gptq.py", "grid.py", "nbits.py")]
        shared += sorted((folder.parent / "calibration").glob("*.py"))
    sources = [own, *shared]
    return hashlib.sha256(b"\0".join(source.read_bytes() for source in sources)).hexdigest()
