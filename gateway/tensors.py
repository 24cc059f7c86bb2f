"""Tensors as the gateway carries them, and the check of a request's inputs against a model's signature.

The gateway computes nothing, so a tensor is its bytes: little-endian, row-major, BYTES as 4-byte length-prefixed
elements: what V2 binary bodies hold and what a slot holds. They are copied once in (to the slot) and once out.

The texts of refusals are those of Triton's core (`infer_request.cc`, Normalize), because clients test for them.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any, NamedTuple

import msgspec

from gateway.errors import BadRequest
from gateway.running.wire import ITEM_BYTES, WireError
from model_store.entities import Signature, TensorSpec

_KNOWN_LAYOUTS = 1024
_MOST_ELEMENTS = 1 << 40
"""Beyond any memory; an empty tensor with such a shape would only make a runtime stumble."""


class Tensor(msgspec.Struct, frozen=True, gc=False):
    """`data` is C order, little-endian; its length is that of the shape (checked where it came in)."""

    datatype: str
    shape: tuple[int, ...]
    data: bytes | memoryview


class Checked(msgspec.Struct, frozen=True, gc=False):
    """Inputs in signature order. `rows` is their common first dimension; `key` is None when they may not be batched."""

    inputs: tuple[Tensor, ...]
    rows: int
    nbytes: int
    key: tuple[tuple[int, ...], ...] | None


class _Layout(NamedTuple):
    """`order`: position in the request of each input of the signature; the rest as in Checked."""

    order: tuple[int, ...]
    rows: int
    nbytes: int
    key: tuple[tuple[int, ...], ...] | None


class InputCheck:
    """Checks requests against one signature; built once per version."""

    def __init__(self, name: str, signature: Signature) -> None:
        self.signature = signature
        self.known: dict[bytes, Any] = {}
        """What protocols remember of requests that passed (gateway/codec/v2_known.py)."""
        self._name = name
        self._specs = {spec.name: (nth, spec) for nth, spec in enumerate(signature.inputs)}
        self._batched = signature.has_batch_axis
        self._texts = any(spec.datatype == "BYTES" for spec in signature.inputs)
        self._known: dict[tuple[tuple[str, str, tuple[int, ...], int], ...], _Layout] = {}

    def __call__(self, named: Sequence[tuple[str, Tensor]], request_id: str | None = "") -> Checked:
        """`request_id`: the client's, empty when it gave none, None where requests have none. Raises BadRequest."""
        layout = tuple([(name, tensor.datatype, tensor.shape, len(tensor.data)) for name, tensor in named])
        known = self._known.get(layout)
        if known is None:
            known = self._examine(named, request_id)
            if len(self._known) >= _KNOWN_LAYOUTS:
                self._known.clear()
            self._known[layout] = known
        order, rows, nbytes, key = known
        if self._texts:
            for name, tensor in named:
                if tensor.datatype == "BYTES":
                    self._check_texts(name, tensor, request_id)
        return Checked(tuple([named[position][1] for position in order]), rows, nbytes, key)

    def _examine(self, named: Sequence[tuple[str, Tensor]], request_id: str | None) -> _Layout:
        """What follows from names, types, shapes and sizes alone, so it is looked at once per layout."""
        positions: list[int | None] = [None] * len(self._specs)
        for position, (name, tensor) in enumerate(named):
            if name not in self._specs:
                raise wrong(request_id, f"unexpected inference input '{name}' for model '{self._name}'")
            nth, spec = self._specs[name]
            if positions[nth] is not None:
                raise wrong(request_id, f"input '{name}' already exists in request")
            self._check(spec, tensor, request_id)
            positions[nth] = position
        order = tuple(position for position in positions if position is not None)
        if len(order) != len(positions):
            raise wrong(request_id, self._missing(named))
        nbytes = sum(len(tensor.data) for _, tensor in named)
        shapes = [named[position][1].shape for position in order]
        if not self._batched:
            return _Layout(order, 1, nbytes, None)
        rows = max(shape[0] for shape in shapes)
        alike = rows > 0 and all(shape[0] == rows for shape in shapes)
        return _Layout(order, rows, nbytes, tuple(shape[1:] for shape in shapes) if alike else None)

    def _check(self, spec: TensorSpec, tensor: Tensor, request_id: str | None) -> None:
        shape, expected = tensor.shape, spec.shape
        if tensor.datatype != spec.datatype:
            raise wrong(
                request_id,
                f"inference input '{spec.name}' data-type is '{tensor.datatype}', "
                f"but model '{self._name}' expects '{spec.datatype}'",
            )
        fits = len(shape) == len(expected)
        if fits:
            for size, wanted in zip(shape, expected, strict=True):
                if (size != wanted and wanted >= 0) or size < 0:
                    fits = False
        if not fits:
            raise wrong(
                request_id,
                f"unexpected shape for input '{spec.name}' for model '{self._name}'. "
                f"Expected {_dims(expected)}, got {_dims(shape)}.",
            )
        if prod(max(1, size) for size in shape) > _MOST_ELEMENTS:
            raise wrong(
                request_id,
                f"input '{spec.name}' for model '{self._name}': the shape {_dims(shape)} causes total element count to "
                f"exceed maximum size of {_MOST_ELEMENTS}",
            )
        if tensor.datatype != "BYTES" and (size := prod(shape) * ITEM_BYTES[tensor.datatype]) != len(tensor.data):
            raise wrong(
                request_id,
                f"input byte size mismatch for input '{spec.name}' for model '{self._name}'. "
                f"Expected {size}, got {len(tensor.data)}",
            )

    def _check_texts(self, name: str, tensor: Tensor, request_id: str | None) -> None:
        expected = prod(tensor.shape)
        ends = text_ends(tensor.data)
        if len(ends) != expected or (ends[-1] if ends else 0) != len(tensor.data):
            raise wrong(
                request_id,
                f"expected {expected} strings for inference input '{name}', got {len(ends)}; each is a 4-byte "
                f"little-endian length and as many bytes, together {len(tensor.data)} bytes",
            )

    def _missing(self, named: Sequence[tuple[str, Tensor]]) -> str:
        given = [name for name, _ in named]
        missing = [name for name in self._specs if name not in given]
        return (
            f"expected {len(self._specs)} inputs but got {len(given)} inputs for model '{self._name}'. "
            f"Got input(s) {given}, but missing required input(s) {missing}. Please provide all required input(s)."
        )


def wrong(request_id: str | None, text: str) -> BadRequest:
    """A refusal as Triton begins it; None: of a protocol whose requests have no id."""
    return BadRequest(text if request_id is None else f"[request id: {request_id or '<id_unknown>'}] {text}")


def text_ends(data: bytes | memoryview) -> list[int]:
    """Where each complete length-prefixed element of a BYTES tensor ends; stops at the first that is cut off."""
    ends: list[int] = []
    at, size = 0, len(data)
    while at + 4 <= size:
        at += 4 + int.from_bytes(data[at : at + 4], "little")
        if at > size:
            break
        ends.append(at)
    return ends


def row_ends(datatype: str, data: bytes | memoryview, rows: int) -> Sequence[int]:
    """Where each of the `rows` rows of a tensor ends. Raises WireError for texts that are not that many rows."""
    if datatype != "BYTES":
        size = len(data) // rows
        return range(size, size * rows + 1, size) if size else [0] * rows
    ends = text_ends(data)
    per_row = len(ends) // rows
    if per_row == 0:
        return [0] * rows
    if len(ends) != per_row * rows:
        raise WireError(f"{len(ends)} strings are not {rows} rows")
    return ends[per_row - 1 :: per_row]


def _dims(shape: Sequence[int]) -> str:
    return "[" + ",".join(map(str, shape)) + "]"
