"""Calibration samples taken out of the owner's file into files of plain rows, and read from there a few at a time.

A file of samples may be larger than the model by far; reading one run's rows at a time keeps it out of memory.
"""

from __future__ import annotations

import math
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from compilers.calibration import Calibration
from compilers.samples import Samples, rows_of, split
from model_store.datatypes import numpy_dtype
from model_store.entities import Signature, TensorSpec

BLOCK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class SpooledRows:
    """Rows in a file; a slice of them is an array, read at that moment."""

    path: Path
    shape: tuple[int, ...]
    dtype: np.dtype

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def ndim(self) -> int:
        return len(self.shape)

    def __getitem__(self, rows: slice, /) -> np.ndarray:
        start, stop, _ = rows.indices(len(self))
        items = math.prod(self.shape[1:])
        with self.path.open("rb") as file:
            file.seek(start * items * self.dtype.itemsize)
            flat = np.fromfile(file, self.dtype, max(0, stop - start) * items)
        return flat.reshape(-1, *self.shape[1:])


def spool(samples: Path, signature: Signature, folder: Path) -> Calibration:
    """The share of `samples` (npz) that calibrates, by input; texts, and what is stored column by column, in memory."""
    with zipfile.ZipFile(samples) as archive:
        shapes = {spec.name: _shape(archive, spec) for spec in signature.inputs}
        if any(not math.prod(shape) for shape in shapes.values()):
            loaded = Samples.load(samples, signature)
            return loaded.select(split(loaded.count).calibration)
        entries = {spec.name: rows_of(spec, len(shapes[spec.name])) for spec in signature.inputs}
        chosen = split(min(shapes[name][0] // rows for name, rows in entries.items())).calibration
        spooled: dict[str, SpooledRows] = {}
        for index, spec in enumerate(signature.inputs):
            rows = (chosen[:, None] * entries[spec.name] + np.arange(entries[spec.name])).ravel()
            spooled[spec.name] = _take(archive, spec, rows, folder / f"samples.{index}")
        return spooled


def _shape(archive: zipfile.ZipFile, spec: TensorSpec) -> tuple[int, ...]:
    """Of a member of plain numbers whose rows lie one after another; (0,) of any other."""
    with archive.open(f"{spec.name}.npy") as stream:
        head = _read_head(stream)
    return head[0] if head is not None and spec.datatype != "BYTES" else (0,)


def _read_head(stream: IO[bytes]) -> tuple[tuple[int, ...], np.dtype] | None:
    version = np.lib.format.read_magic(stream)
    if version not in ((1, 0), (2, 0)):
        return None
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, columns_first, dtype = read(stream)
    return None if columns_first or dtype.kind not in "biuf" or not shape else (shape, dtype)


def _take(archive: zipfile.ZipFile, spec: TensorSpec, entries: np.ndarray, path: Path) -> SpooledRows:
    """Copy rows `entries` of a member, in that order, reading it once from its beginning."""
    places = {int(entry): place for place, entry in enumerate(entries)}
    kind = numpy_dtype(spec.datatype)
    with archive.open(f"{spec.name}.npy") as stream, path.open("wb") as file:
        head = _read_head(stream)
        assert head is not None
        shape, dtype = head
        row = math.prod(shape[1:]) * dtype.itemsize
        at_once = max(1, BLOCK_BYTES // max(1, row))
        for start in range(0, shape[0], at_once):
            block = np.frombuffer(stream.read(min(at_once, shape[0] - start) * row), dtype)
            for offset, values in enumerate(block.reshape(-1, math.prod(shape[1:]))):
                place = places.get(start + offset)
                if place is not None:
                    file.seek(place * values.size * kind.itemsize)
                    file.write(values.astype(kind).tobytes())
    return SpooledRows(path, (len(entries), *shape[1:]), kind)
