"""Tensors as the gateway carries them, and the check of a request's inputs against a model's signature.

The gateway computes nothing, so a tensor is its bytes: little-endian, row-major, BYTES as 4-byte length-prefixed
elements: what V2 binary bodies hold and what a slot holds. They are copied once in (to the slot) and once out.

The texts of refusals are those of Triton's core (`infer_request.cc`, Normalize), because clients test for them.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import msgspec

from gateway.errors import BadRequest
from gateway.wire import ITEM_BYTES
from model_store.entities import Signature, TensorSpec


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


class InputCheck:
    """Checks requests against one signature; built once per version."""

    def __init__(self, name: str, signature: Signature) -> None:
        self._name = name
        self._specs = {spec.name: (nth, spec) for nth, spec in enumerate(signature.inputs)}
        self._batched = signature.has_batch_axis

    def __call__(self, named: Sequence[tuple[str, Tensor]], request_id: str = "") -> Checked:
        """Raises BadRequest with the words Triton uses."""
        ordered: list[Tensor | None] = [None] * len(self._specs)
        nbytes = 0
        for name, tensor in named:
            if name not in self._specs:
                raise self._wrong(request_id, f"unexpected inference input '{name}' for model '{self._name}'")
            nth, spec = self._specs[name]
            if ordered[nth] is not None:
                raise self._wrong(request_id, f"input '{name}' already exists in request")
            self._check(spec, tensor, request_id)
            ordered[nth] = tensor
            nbytes += len(tensor.data)
        inputs = tuple(tensor for tensor in ordered if tensor is not None)
        if len(inputs) != len(ordered):
            raise self._wrong(request_id, self._missing(named))
        if not self._batched:
            return Checked(inputs, 1, nbytes, None)
        rows = inputs[0].shape[0]
        if any(tensor.shape[0] != rows for tensor in inputs):
            return Checked(inputs, max(tensor.shape[0] for tensor in inputs), nbytes, None)
        return Checked(inputs, rows, nbytes, tuple(tensor.shape[1:] for tensor in inputs) if rows else None)

    def _check(self, spec: TensorSpec, tensor: Tensor, request_id: str) -> None:
        shape, expected = tensor.shape, spec.shape
        if tensor.datatype != spec.datatype:
            raise self._wrong(
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
            raise self._wrong(
                request_id,
                f"unexpected shape for input '{spec.name}' for model '{self._name}'. "
                f"Expected {_dims(expected)}, got {_dims(shape)}.",
            )
        if tensor.datatype == "BYTES":
            self._check_texts(spec.name, tensor, request_id)
        elif (size := prod(shape) * ITEM_BYTES[tensor.datatype]) != len(tensor.data):
            raise self._wrong(
                request_id,
                f"input byte size mismatch for input '{spec.name}' for model '{self._name}'. "
                f"Expected {size}, got {len(tensor.data)}",
            )

    def _check_texts(self, name: str, tensor: Tensor, request_id: str) -> None:
        expected = prod(tensor.shape)
        ends = text_ends(tensor.data)
        if len(ends) != expected or (ends[-1] if ends else 0) != len(tensor.data):
            raise self._wrong(
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

    def _wrong(self, request_id: str, text: str) -> BadRequest:
        return BadRequest(f"[request id: {request_id}] {text}" if request_id else text)


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


def _dims(shape: Sequence[int]) -> str:
    return "[" + ",".join(map(str, shape)) + "]"
