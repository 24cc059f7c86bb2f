"""Weights on a logarithmic grid, kept as floats: nothing gets faster, but the file packs to a few bits a weight.

No ONNX runtime has a kernel for shifts, so this is a codec for storage (COMPILING 2.F): the graph and its types stay as
they are, only the values move onto a small set of levels, which model_store.packing finds and keeps as a palette.

Levels are sign * base^k with base = 2^(1/steps). One step an octave saturates near 14 dB whatever the bits, since each
level is twice the one below; two reach 20 dB, four 26 dB on normal weights. `apot` takes additive powers of two
instead (Li et al. 2020, arXiv 1909.13144), sums of a few powers of two, which stay dense at the top as well. Scales
too are taken from powers of a root of two, so that channels share their levels.
"""

from __future__ import annotations

import itertools

import numpy as np
import onnx_ir as ir

from compilers.passes.constants import unused_name
from compilers.passes.graph import constant, need

LEAST_WEIGHTS = 1024
"""Elements of the smallest weight that is quantized: biases and scales weigh nothing and matter much."""

SCALES_AN_OCTAVE = 8
_APOT_SCALES = range(5, -9, -1)
"""Tried around a channel's largest weight, in steps of an eighth octave: clipping a little often fits better."""

_CHANNEL_AXIS = {"Conv": 0, "ConvTranspose": 1, "MatMul": -1, "Gather": 0}


class LogQuantize(ir.passes.FunctionalPass):
    """bits: 4 to 8 a weight, its sign among them. steps: levels an octave (1, 2 or 4). apot: additive powers instead
    (steps then count for nothing). per_channel: every output channel has a range of its own."""

    def __init__(self, bits: int = 6, steps: int = 4, apot: bool = False, per_channel: bool = True) -> None:
        self.bits = bits
        self.steps = steps
        self.apot = apot
        self.per_channel = per_channel

    def requires(self, model: ir.Model) -> None:
        need(4 <= self.bits <= 8, f"bits are 4 to 8, not {self.bits}")
        need(self.steps in (1, 2, 4), f"steps are 1, 2 or 4, not {self.steps}")
        need(any(True for _ in _weights(model)), f"nothing to quantize: no float32 weight of {LEAST_WEIGHTS} elements")

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        work, changed = model.clone(), False
        for value, axis in list(_weights(work)):
            tensor = constant(value)
            assert tensor is not None
            before = tensor.numpy()
            after = self.quantize(before, axis if self.per_channel else None)
            if not np.array_equal(before, after):
                _replace(work.graph, value, after)
                changed = True
        return ir.passes.PassResult(work, modified=changed)

    def quantize(self, weight: np.ndarray, axis: int | None) -> np.ndarray:
        """The nearest values on the grid, float32 and of the same shape; `axis`: that of the channels, None: one for
        all. What is on the grid already stays, bit for bit."""
        flat = weight.reshape(1, -1) if axis is None else np.moveaxis(weight, axis, 0).reshape(weight.shape[axis], -1)
        rounded = _additive(flat, self.bits) if self.apot else _logarithmic(flat, self.bits, self.steps)
        if axis is None:
            return rounded.reshape(weight.shape)
        moved = np.moveaxis(weight, axis, 0).shape
        return np.ascontiguousarray(np.moveaxis(rounded.reshape(moved), 0, axis))


def additive_levels(bits: int) -> np.ndarray:
    """The 2^(bits-1) magnitudes from 0 to 1 that sums of powers of two make: one term for every two bits of magnitude
    (0, 2^-i, 2^-(i+n), 2^-(i+2n) for the i-th of n), and one of a single bit for an odd one. Source: section 2.2."""
    terms, odd = divmod(bits - 1, 2)
    count = terms + odd
    powers = [(0.0, *(2.0 ** -(i + count * j) for j in range(3))) for i in range(terms)]
    powers += [(0.0, 2.0**-terms)] * odd
    sums = sorted(sum(chosen) for chosen in itertools.product(*powers))
    return np.array(sums) / sums[-1]


def _logarithmic(rows: np.ndarray, bits: int, steps: int) -> np.ndarray:
    """Every row [channels, weights] onto sign * 2^(k / steps), for the 2^(bits-1) - 1 highest k of it, and zero."""
    count = (1 << (bits - 1)) - 1
    size = np.abs(rows.astype(np.float64))
    most = size.max(axis=1, initial=0.0)
    with np.errstate(divide="ignore"):
        # Half a rounding error below the top is the top: a second run must find the same levels.
        top = np.ceil(steps * np.log2(np.where(most > 0, most, 1.0)) - 1e-3).astype(np.int64)[:, None]
        below = np.floor(steps * np.log2(size) + 1e-6)
    below = np.clip(np.nan_to_num(below, neginf=-1e6), top - count, top - 1)
    low, high = np.exp2(below / steps), np.exp2((below + 1) / steps)
    low = np.where(below == top - count, 0.0, low)
    level = np.where(size - low > high - size, high, low)
    return _signed(level, rows)


def _additive(rows: np.ndarray, bits: int) -> np.ndarray:
    """Every row onto scale * sign * level with the scale, a power of 2^(1/8), that loses least."""
    levels = additive_levels(bits)
    middles = (levels[1:] + levels[:-1]) / 2
    size = np.abs(rows.astype(np.float64))
    top = _top(size)
    best, least = np.zeros(rows.shape, np.float32), np.full(len(rows), np.inf)
    for shift in _APOT_SCALES:
        scale = np.exp2((top + shift) / SCALES_AN_OCTAVE)[:, None]
        rounded = (scale * levels[np.searchsorted(middles, size / scale)]).astype(np.float32)
        lost = np.square(size - rounded).sum(axis=1)
        # A scale that is out of reach of what it rounded to would not be tried, nor found, a second time.
        better = (lost < least) & (top + shift - _top(rounded.astype(np.float64)) <= _APOT_SCALES[0])
        best[better], least[better] = rounded[better], lost[better]
    return _signed(best, rows)


def _top(size: np.ndarray) -> np.ndarray:
    """The least scale that holds every row of magnitudes, in steps of 2^(1/8); 0 for a row of zeros."""
    most = size.max(axis=1, initial=0.0)
    steps: np.ndarray = np.ceil(SCALES_AN_OCTAVE * np.log2(np.where(most > 0, most, 1.0)) - 1e-3)
    return steps


def _signed(size: np.ndarray, like: np.ndarray) -> np.ndarray:
    """float32, without a negative zero: that would be one more value to keep."""
    signed: np.ndarray = np.copysign(size, like).astype(np.float32) + np.float32(0)
    return signed


def _weights(model: ir.Model) -> list[tuple[ir.Value, int]]:
    """Large float32 initializers that products and look-ups read, each with the axis of its channels."""
    found: dict[ir.Value, int] = {}
    for node in model.graph.all_nodes():
        axis, index = _CHANNEL_AXIS.get(node.op_type), 0 if node.op_type == "Gather" else 1
        if node.op_type == "Gemm":
            axis = 0 if node.attributes.get_int("transB", 0) else 1
        if axis is None or len(node.inputs) <= index or (value := node.inputs[index]) is None or value in found:
            continue
        tensor = constant(value) if value.is_initializer() else None
        if tensor is None or tensor.dtype != ir.DataType.FLOAT or tensor.size < LEAST_WEIGHTS or len(tensor.shape) < 2:
            continue
        found[value] = axis
    return list(found.items())


def _replace(graph: ir.Graph, value: ir.Value, array: np.ndarray) -> None:
    name = unused_name(graph, f"{value.name}_log")
    new = ir.Value(name=name, const_value=ir.tensor(array, name=name))
    new.dtype, new.shape = ir.DataType.FLOAT, ir.Shape(array.shape)
    graph.register_initializer(new)
    for node, index in tuple(value.uses()):
        node.replace_input_with(index, new)
    if value.name is not None and value.name in graph.initializers and not value.is_graph_output():
        graph.initializers.pop(value.name)
