"""Bytes at rest in fewer bytes: a codec for files of weights that knows no file format.

A file is cut into blocks, and each block is kept in whichever of these shapes comes out smallest:

    plain     as it is
    planes    bytes 0, 4, 8, ... then 1, 5, 9, ...: exponents lie together (Blosc's shuffle), by words of 2 or of 4
    palette   a table of the few distinct words and an index for each: quantized weights that are kept as floats
    sparse    a bit for every word that is not zero, and those words in planes

each then through zstd. Words may begin at any of four bytes, since weights lie in an ONNX file wherever its names end.
Blocks stand alone, so unpacking is a stream and memory is bounded by a few blocks.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import IO

import numpy as np
import zstandard

BLOCK = 1 << 20
MOST_DISTINCT = 4096
_SAMPLE = 2048
_MAGIC = b"FWP1"
_HEAD = struct.Struct("<4sQ")
_BLOCK_HEAD = struct.Struct("<BII")

PLAIN, PLANES_2, PLANES_4, PALETTE, SPARSE = range(5)


class Damaged(ValueError):
    """These bytes are not what `pack` wrote."""


def pack(read: Callable[[int], bytes], size: int, write: Callable[[bytes], object]) -> int:
    """Read `size` bytes, write them packed; how many were written. `read` is a file's: given n, at most n bytes."""
    quick, thorough = zstandard.ZstdCompressor(level=1), zstandard.ZstdCompressor(level=9)
    write(_HEAD.pack(_MAGIC, size))
    written, left = _HEAD.size, size
    while left:
        block = _exactly(read, min(BLOCK, left))
        kind, shaped = min(_shapes(block), key=lambda shape: len(quick.compress(shape[1])))
        packed = thorough.compress(shaped)
        write(_BLOCK_HEAD.pack(kind, len(packed), len(block)) + packed)
        written += _BLOCK_HEAD.size + len(packed)
        left -= len(block)
    return written


def plain_size(file: IO[bytes]) -> int:
    """The size of what was packed; reads the head of the file. Raises Damaged."""
    return _read_head(file)


def unpack(file: IO[bytes]) -> Iterator[bytes]:
    """The blocks in order. Raises Damaged; whether they are the right bytes only their digest can tell."""
    left = _read_head(file)
    while left:
        kind, packed_size, size = _BLOCK_HEAD.unpack(_exactly(file.read, _BLOCK_HEAD.size))
        if not 0 < size <= min(BLOCK, left) or packed_size > 2 * BLOCK:
            raise Damaged("a block is larger than blocks are")
        block = _restore(kind, _exactly(file.read, packed_size), size)
        if len(block) != size:
            raise Damaged(f"a block of {size} bytes gave {len(block)}")
        yield block
        left -= size


def _read_head(file: IO[bytes]) -> int:
    magic, size = _HEAD.unpack(_exactly(file.read, _HEAD.size))
    if magic != _MAGIC:
        raise Damaged("not a packed file")
    plain: int = size
    return plain


def _exactly(read: Callable[[int], bytes], size: int) -> bytes:
    parts = []
    while size:
        part = read(size)
        if not part:
            raise Damaged("the file ends too soon")
        parts.append(part)
        size -= len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _shapes(block: bytes) -> Iterator[tuple[int, bytes]]:
    """Every shape that the block can take."""
    yield PLAIN, block
    for kind, word in ((PLANES_2, 2), (PLANES_4, 4)):
        yield kind, _planes(block, word)
    for kind, make in ((PALETTE, _palette), (SPARSE, _sparse)):
        made = make(block)
        if made is not None:
            yield kind, made


def _restore(kind: int, packed: bytes, size: int) -> bytes:
    try:
        if kind == PLAIN:
            return decompress(packed, size)
        if kind in (PLANES_2, PLANES_4):
            return _from_planes(decompress(packed, size), 2 if kind == PLANES_2 else 4)
        most = size + 4 * MOST_DISTINCT + 64
        if kind == PALETTE:
            return _from_palette(decompress(packed, most), size)
        if kind == SPARSE:
            return _from_sparse(decompress(packed, size + size // 32 + 64), size)
    except Damaged:
        raise
    except Exception as exc:  # zstd and numpy raise anything on bytes that are not theirs
        raise Damaged(f"a block cannot be read: {exc}") from exc
    raise Damaged(f"no shape has the number {kind}")


def _planes(block: bytes, word: int) -> bytes:
    whole = len(block) // word * word
    words = np.frombuffer(block, np.uint8, whole).reshape(-1, word)
    return np.ascontiguousarray(words.T).tobytes() + block[whole:]


def _from_planes(planes: bytes, word: int) -> bytes:
    whole = len(planes) // word * word
    words = np.frombuffer(planes, np.uint8, whole).reshape(word, -1)
    return np.ascontiguousarray(words.T).tobytes() + planes[whole:]


def _words(block: bytes, phase: int) -> tuple[np.ndarray, bytes, bytes]:
    """The four-byte words that begin at `phase`, and what lies before and behind them."""
    count = (len(block) - phase) // 4
    return np.frombuffer(block, "<u4", count, phase), block[:phase], block[phase + 4 * count :]


def _phase(block: bytes, cost: Callable[[np.ndarray], float]) -> int:
    """Where words begin, by a sample from the middle of the block."""
    middle = len(block) // 2 & ~3
    sample = block[middle : middle + 4 * _SAMPLE + 4]
    return min(range(4), key=lambda phase: cost(_words(sample, phase)[0])) if len(block) > 64 else 0


def _palette(block: bytes) -> bytes | None:
    """Phase, size of the table, table by falling frequency, indices (of one byte, or two in planes), the ends."""
    phase = _phase(block, lambda words: float(len(np.unique(words))))
    words, before, behind = _words(block, phase)
    if len(np.unique(words[len(words) // 2 :][:_SAMPLE])) > min(MOST_DISTINCT, _SAMPLE // 2):
        return None
    values, inverse, counts = np.unique(words, return_inverse=True, return_counts=True)
    if not 0 < len(values) <= MOST_DISTINCT:
        return None
    order = np.argsort(-counts, kind="stable")
    rank = np.empty(len(values), np.uint16)
    rank[order] = np.arange(len(values), dtype=np.uint16)
    indices = rank[inverse.ravel()]
    body = indices.astype(np.uint8).tobytes() if len(values) <= 256 else _planes(indices.astype("<u2").tobytes(), 2)
    return struct.pack("<BH", phase, len(values)) + values[order].astype("<u4").tobytes() + body + before + behind


def _from_palette(made: bytes, size: int) -> bytes:
    phase, count = struct.unpack_from("<BH", made)
    table = np.frombuffer(made, "<u4", count, 3)
    words, at = (size - phase) // 4, 3 + 4 * count
    width = 1 if count <= 256 else 2
    body = made[at : at + width * words]
    indices = np.frombuffer(body if width == 1 else _from_planes(body, 2), np.uint8 if width == 1 else "<u2")
    ends = made[at + width * words :]
    words_again: bytes = table[indices].tobytes()
    return ends[:phase] + words_again + ends[phase:]


def _sparse(block: bytes) -> bytes | None:
    """Phase, a bit for every word that is not zero, those words in planes, the ends."""
    phase = _phase(block, lambda words: float(np.count_nonzero(words)))
    words, before, behind = _words(block, phase)
    present = words != 0
    if np.count_nonzero(present) > 0.75 * len(words):
        return None
    return bytes([phase]) + np.packbits(present).tobytes() + _planes(words[present].tobytes(), 4) + before + behind


def _from_sparse(made: bytes, size: int) -> bytes:
    phase = made[0]
    count = (size - phase) // 4
    bits = 1 + (count + 7) // 8
    present = np.unpackbits(np.frombuffer(made[1:bits], np.uint8), count=count).astype(bool)
    held = 4 * int(np.count_nonzero(present))
    words = np.zeros(count, "<u4")
    words[present] = np.frombuffer(_from_planes(made[bits : bits + held], 4), "<u4")
    ends = made[bits + held :]
    return ends[:phase] + words.tobytes() + ends[phase:]


def decompress(packed: bytes, most: int) -> bytes:
    """What zstd made of it. Raises Damaged when that says to be more than `most` bytes, before any is allocated."""
    size = zstandard.frame_content_size(packed)
    if not 0 <= size <= most:
        raise Damaged("a block gives more than it should")
    return zstandard.ZstdDecompressor().decompress(packed, max_output_size=most)
