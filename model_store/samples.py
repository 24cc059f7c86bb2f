"""Are these samples of that model? An npz with one array per input, first axis = sample, and perhaps labels.

Where an input's array has as many axes as the input, its first axis is the rows; where it has one more, every entry
is a whole input (for models without an axis for rows). Every message says what was found and what would be right,
because this is the file people make by hand.
"""

from __future__ import annotations

import difflib
import tokenize
import zipfile
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import IO

import numpy as np

from model_store.datatypes import numpy_dtype
from model_store.entities import Signature, TensorSpec
from model_store.errors import InvalidSamples

LABELS = "labels"
MOST_ARRAYS = 1_000
MOST_BYTES = 4 << 30
"""Unpacked. No limit on the ratio: honest attention masks pack a thousand times."""

_LONGEST_HEADER = 10_000


def check(path: Path, signature: Signature) -> int:
    """The number of samples. Raises InvalidSamples with what was wrong and what would be right."""
    with path.open("rb") as file:
        head = file.read(8)
    if head.startswith(b"\x93NUMPY"):
        raise InvalidSamples(f"the samples are a single array (.npy); name it: {_savez(signature.inputs)}")
    if not head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        what = "empty" if not head else "a pickle" if head.startswith(b"\x80") else "no .npz file"
        raise InvalidSamples(f"the samples are {what}; write them with {_savez(signature.inputs)}")
    try:
        with zipfile.ZipFile(path) as archive:
            return _check_arrays(_Npz(archive), signature)
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, zlib.error) as exc:
        raise InvalidSamples(f"the .npz is damaged or cut short ({exc}); send it again") from None


def _check_arrays(npz: _Npz, signature: Signature) -> int:
    inputs = {spec.name: spec for spec in signature.inputs}
    missing = [name for name in inputs if name not in npz.names]
    extra = [name for name in npz.names if name not in inputs and name != LABELS and not name.startswith(LABELS + ".")]
    if missing or extra:
        raise InvalidSamples(_wrong_names(missing, extra, list(inputs)))
    counts = {name: _check_input(npz.load(name), spec) for name, spec in inputs.items()}
    if len(set(counts.values())) > 1:
        held = ", ".join(f"{name!r} {count:,}" for name, count in counts.items())
        raise InvalidSamples(f"every input needs the same number of samples along its first axis, but there are {held}")
    count = next(iter(counts.values()))
    if count == 0:
        raise InvalidSamples("the samples are empty: the first axis of every array has length 0")
    for name in npz.names:
        if name not in inputs:
            _check_labels(name, npz.load(name), count, signature)
    return count


class _Npz:
    """The arrays of an npz, loaded one at a time, never unpickled, never more than they declare."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        members = archive.infolist()
        if len(members) > MOST_ARRAYS:
            raise InvalidSamples(f"the .npz holds {len(members):,} files; at most {MOST_ARRAYS:,} arrays are taken")
        total = sum(info.file_size for info in members)
        if total > MOST_BYTES:
            raise InvalidSamples(
                f"the .npz unpacks to {total:,} bytes, at most {MOST_BYTES:,} are taken; a few hundred samples do"
            )
        odd = [info.filename for info in members if not info.filename.endswith(".npy")]
        if odd:
            raise InvalidSamples(f"the archive holds {odd[0][:80]!r}, which is no array; write it with numpy.savez")
        self._archive = archive
        self._members = {info.filename.removesuffix(".npy"): info for info in members}
        if len(self._members) != len(members):
            raise InvalidSamples("the .npz holds two arrays of the same name")
        self.names = tuple(self._members)

    def load(self, name: str) -> np.ndarray:
        info = self._members[name]
        with self._archive.open(info) as file:
            shape, dtype = _header(name, file)
            _refuse_objects(name, dtype)
            if any(size < 0 for size in shape):
                raise InvalidSamples(f"{name!r} declares the shape {shape}, with a negative axis: it is damaged")
            declared = int(np.prod(shape, dtype=object)) * dtype.itemsize
            if declared > info.file_size:
                raise InvalidSamples(
                    f"{name!r} declares shape {_shape(shape)} of {dtype}, {declared:,} bytes, "
                    f"but the file holds {info.file_size:,}: it is damaged"
                )
        with self._archive.open(info) as file:
            return np.lib.format.read_array(file, allow_pickle=False, max_header_size=_LONGEST_HEADER)


def _header(name: str, file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype]:
    try:
        version = np.lib.format.read_magic(file)
        readers: dict[tuple[int, int], Callable[..., tuple[tuple[int, ...], bool, np.dtype]]] = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }
        if version not in readers:
            raise InvalidSamples(f"{name!r} is an array of format {version}, which is for records; use a plain dtype")
        shape, _, dtype = readers[version](file, max_header_size=_LONGEST_HEADER)
    except (ValueError, SyntaxError, tokenize.TokenError) as exc:
        if isinstance(exc, InvalidSamples):
            raise
        raise InvalidSamples(f"{name!r} is no NumPy array or is damaged ({exc})") from None
    return shape, dtype


def _refuse_objects(name: str, dtype: np.dtype) -> None:
    if dtype.hasobject:
        raise InvalidSamples(
            f"{name!r} is an array of Python objects, which only unpickling could read (it would run code); "
            f"store texts as numpy.array(texts) (a 'U' or 'S' dtype) and numbers as a numeric dtype"
        )


def _check_input(array: np.ndarray, spec: TensorSpec) -> int:
    _check_dtype(array, spec)
    count = _check_shape(array, spec)
    _check_finite(spec.name, array)
    return count


def _check_dtype(array: np.ndarray, spec: TensorSpec) -> None:
    name, wanted = spec.name, spec.datatype
    if wanted == "BYTES":
        if array.dtype.kind not in "SU":
            raise InvalidSamples(
                f"{name!r} is {array.dtype}, the model takes texts (BYTES): use numpy.array of str or bytes"
            )
        return
    if array.dtype.kind in "SU":
        raise InvalidSamples(f"{name!r} holds texts ({array.dtype}), the model takes {wanted}")
    if wanted == "BF16":  # .npy has no bfloat16, so its samples come as float32
        if array.dtype.kind != "f" or array.dtype.itemsize > 4:
            raise InvalidSamples(f"{name!r} is {array.dtype}, the model takes BF16: store it as float32")
        return
    dtype = numpy_dtype(wanted)
    if not np.can_cast(array.dtype, dtype, "safe"):
        raise InvalidSamples(
            f"{name!r} is {array.dtype}, the model takes {wanted} ({dtype}); convert it: {name}.astype('{dtype}')"
        )


def _check_shape(array: np.ndarray, spec: TensorSpec) -> int:
    """The number of samples the array holds."""
    name, shape = spec.name, spec.shape
    whole = array.ndim == len(shape) + 1 and (not shape or shape[0] != -1)
    if not whole and (array.ndim != len(shape) or not shape):
        raise InvalidSamples(
            f"{name!r} has shape {_shape(array.shape)}, the model takes {_shape(shape)}: "
            f"the array needs {_wanted(shape)}, the first axis counting the samples"
        )
    given, wanted = array.shape[1:], shape if whole else shape[1:]
    for axis, (size, limit) in enumerate(zip(given, wanted, strict=True), start=1):
        if limit not in (-1, size):
            raise InvalidSamples(
                f"{name!r} has shape {_shape(array.shape)}, the model takes {_shape(shape)}: "
                f"axis {axis} of the samples has {size:,} entries and must have {limit:,}"
            )
    if whole or shape[0] in (-1, 0, 1):
        return len(array)
    count, rest = divmod(len(array), shape[0])
    if rest:
        raise InvalidSamples(
            f"{name!r} has {len(array):,} rows, the model takes {shape[0]:,} at once, always: send a multiple of that"
        )
    return count


def _check_finite(name: str, array: np.ndarray) -> None:
    if array.dtype.kind != "f":
        return
    bad = ~np.isfinite(array)
    if bad.any():
        count, first = int(bad.sum()), int(np.argwhere(bad)[0][0])
        raise InvalidSamples(
            f"{name!r} holds NaN or infinity ({count:,} of {array.size:,} values, the first in sample {first:,}); "
            "samples must be finite"
        )


def _check_labels(name: str, labels: np.ndarray, count: int, signature: Signature) -> None:
    output = _labelled_output(name, signature)
    if labels.ndim == 0 or len(labels) != count:
        held = "a single value" if labels.ndim == 0 else f"{len(labels):,} entries"
        raise InvalidSamples(f"{name!r} has {held} for {count:,} samples; it needs one per sample")
    if any(spec.shape and spec.shape[0] > 1 for spec in signature.inputs):
        raise InvalidSamples(
            f"{name!r}: labels need a model that takes rows one at a time; make its first axis dynamic"
        )
    if labels.dtype.kind in "iu" and labels.ndim == 1:
        _check_classes(name, labels, output)
        return
    tail = output.shape[1:]
    fits = labels.ndim == len(output.shape) and all(
        wanted in (-1, size) for wanted, size in zip(tail, labels.shape[1:], strict=True)
    )
    if labels.dtype.kind not in "fiub" or not fits:
        raise InvalidSamples(
            f"{name!r} is {labels.dtype} of shape {_shape(labels.shape)}; labels are integer classes of shape "
            f"{_shape((count,))} or the expected values of {output.name!r}, of shape {_shape((count, *tail))}"
        )
    _check_finite(name, labels)


def _check_classes(name: str, labels: np.ndarray, output: TensorSpec) -> None:
    classes = output.shape[-1] if len(output.shape) > 1 else -1
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or (classes > 0 and high >= classes):
        wrong = low if low < 0 else high
        wanted = f"0 to {classes - 1:,}" if classes > 0 else "0 or more"
        raise InvalidSamples(f"{name!r} holds the class {wrong:,}; the classes of {output.name!r} are {wanted}")


def _labelled_output(name: str, signature: Signature) -> TensorSpec:
    outputs = {spec.name: spec for spec in signature.outputs}
    wanted = name.removeprefix(LABELS).removeprefix(".")
    if not wanted and len(outputs) == 1:
        return signature.outputs[0]
    if wanted not in outputs:
        right = ", ".join(f"'{LABELS}.{output}'" for output in outputs)
        close = difflib.get_close_matches(wanted, outputs, n=1)
        hint = f"; did you mean '{LABELS}.{close[0]}'?" if close else f"; name it {right}"
        raise InvalidSamples(f"{name!r} names no output of the model{hint}")
    return outputs[wanted]


def _wrong_names(missing: list[str], extra: list[str], inputs: list[str]) -> str:
    parts = []
    if missing:
        parts.append(f"the samples lack the input{'s' * (len(missing) > 1)} {_list(missing)}")
    for name in extra[:5]:
        close = difflib.get_close_matches(name, [*(missing or inputs), LABELS], n=1)
        parts.append(f"the array {name!r} is no input" + (f"; did you mean {close[0]!r}?" if close else ""))
    return "; ".join(parts) + f" (the model takes {_list(inputs)})"


def _list(names: Iterable[str]) -> str:
    return ", ".join(repr(name) for name in names)


def _savez(inputs: Iterable[TensorSpec]) -> str:
    return f"numpy.savez('samples.npz', {', '.join(f'{spec.name}=...' for spec in inputs)})"


def _wanted(shape: tuple[int, ...]) -> str:
    return "one axis" if len(shape) <= 1 else f"{len(shape)} axes"


def _shape(shape: Iterable[int]) -> str:
    return "[" + ",".join("N" if size == -1 else str(size) for size in shape) + "]"
