"""Outputs of the reference over the validation samples, kept run by run in one npz: computed once, compared often.

Written and read one run at a time, because the outputs of many samples need not fit into memory. Texts are stored as
UTF-8 byte strings, so that nothing in the file is ever unpickled.
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from types import TracebackType

import numpy as np

Tensors = dict[str, np.ndarray]


class Recorder:
    """Writes a recording; `size` is what was written so far, in bytes."""

    def __init__(self, path: Path) -> None:
        self._file = zipfile.ZipFile(path, "w", zipfile.ZIP_STORED)
        self._names: list[str] = []
        self.runs = 0
        self.size = 0

    def __enter__(self) -> Recorder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._write("names", np.array(self._names))
        self._file.close()

    def add(self, outputs: Tensors) -> None:
        self._names = self._names or list(outputs)
        for index, name in enumerate(self._names):
            self._write(f"{self.runs}.{index}", outputs[name])
        self.runs += 1

    def _write(self, member: str, array: np.ndarray) -> None:
        plain = _as_texts(array) if array.dtype == object else np.asarray(array)
        with self._file.open(member + ".npy", "w", force_zip64=True) as stream:
            np.lib.format.write_array(stream, plain, allow_pickle=False)
        self.size += plain.nbytes


class Recording:
    """Reads what a Recorder wrote."""

    def __init__(self, path: Path) -> None:
        self._file = np.load(path, allow_pickle=False)
        self._names = [str(name) for name in self._file["names"]]
        self.runs = (len(self._file.files) - 1) // max(1, len(self._names))

    def outputs(self, run: int) -> Tensors:
        return {name: _from_texts(self._file[f"{run}.{index}"]) for index, name in enumerate(self._names)}

    def close(self) -> None:
        self._file.close()


def _as_texts(array: np.ndarray) -> np.ndarray:
    # numpy's byte strings lose trailing zero bytes: a closing mark keeps them.
    items = [(item if isinstance(item, bytes) else str(item).encode()) + b"." for item in array.ravel().tolist()]
    return np.array(items, dtype=np.bytes_).reshape(array.shape)


def _from_texts(array: np.ndarray) -> np.ndarray:
    if array.dtype.kind != "S":
        return array
    texts = np.empty(array.shape, dtype=object)
    texts.reshape(-1)[:] = [item[:-1] for item in array.ravel().tolist()]
    return texts
