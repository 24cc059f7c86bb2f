"""The codes inside a MatMulNBits, rounded anew by what samples say of its inputs (GPTQ), its scales left as they are.

ONNX Runtime's quantizer rounds to the nearest. Its scales and zero points stay; only which point of the grid each entry
takes is chosen anew, so the kernel sees the same node. Layout (MatMulNBits-1): B [outputs, blocks, block * bits / 8]
with the first of two 4-bit codes in the low half; scales [outputs * blocks]; zero points packed like codes, by row.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, numpy_helper

from compilers.passes.gptq import gptq


def round_by_gram(model: onnx.ModelProto, node: onnx.NodeProto, weight: np.ndarray, gram: np.ndarray) -> None:
    """Write the codes of `node` (a MatMulNBits) anew, in place. weight: as in float, [K, outputs]; gram: [K, K]."""
    depth, outputs, bits, block = (_integer(node, name) for name in ("K", "N", "bits", "block_size"))
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    packed, scales, *points = (numpy_helper.to_array(tensors[name]) for name in node.input[1:4] if name)
    blocks = -(-depth // block)
    scale = _spread(scales.reshape(outputs, blocks), block, depth)
    middle = np.full((outputs, blocks), 1 << (bits - 1))
    zero = _spread(_codes(points[0].reshape(outputs, -1), bits)[:, :blocks] if points else middle, block, depth)
    nonzero = np.where(scale == 0, 1, scale)
    codes = gptq(weight.T, gram, nonzero, -zero, (1 << bits) - 1 - zero) + zero
    padded = _codes(packed.reshape(outputs, -1), bits)
    padded[:, :depth] = codes
    made = _packed(padded.astype(np.uint8), bits).reshape(packed.shape)
    tensors[node.input[1]].CopyFrom(numpy_helper.from_array(made, node.input[1]))


def _integer(node: onnx.NodeProto, name: str) -> int:
    return int(next(helper.get_attribute_value(each) for each in node.attribute if each.name == name))


def _spread(by_block: np.ndarray, block: int, depth: int) -> np.ndarray:
    """[outputs, blocks] -> [outputs, depth]."""
    return np.repeat(by_block, block, axis=1)[:, :depth].astype(np.float64)


def _codes(packed: np.ndarray, bits: int) -> np.ndarray:
    """Bytes [rows, n] -> codes [rows, n * 8 / bits]."""
    if bits == 8:
        return packed.copy()
    return np.stack([packed & 15, packed >> 4], axis=-1).reshape(len(packed), -1)


def _packed(codes: np.ndarray, bits: int) -> np.ndarray:
    return codes if bits == 8 else codes[:, 0::2] | (codes[:, 1::2] << 4)
