"""What HTTP and gRPC remember alike of predictions that come again but for the bytes of their tensors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, NamedTuple, TypeVar

from gateway.serve import Result
from gateway.tensors import Checked, Tensor

MOST_BYTES = 2048
"""Of what is around the tensors; more is read each time."""

MOST = 256
"""Requests that are remembered in one place; then it begins anew."""

_MOST_FRAMES = 64

Frame = TypeVar("Frame")


class Part(NamedTuple):
    """Where an input lies among the bytes of its request."""

    start: int
    end: int
    datatype: str
    shape: tuple[int, ...]


def cut(data: memoryview, parts: Sequence[Part], found: Checked) -> Checked:
    """The inputs in `data`, with what was `found` of others that lay at the same places."""
    inputs = tuple([Tensor(datatype, shape, data[start:end]) for start, end, datatype, shape in parts])
    return Checked(inputs, found.rows, found.nbytes, found.key)


class Frames(Generic[Frame]):
    """What goes around the outputs of an answer: the same while the same variant gives the same shapes."""

    __slots__ = ("_frames", "_make")

    def __init__(self, make: Callable[[Result], Frame]) -> None:
        self._make = make
        self._frames: dict[tuple[str, tuple[tuple[str, tuple[int, ...], int], ...]], Frame] = {}

    def around(self, result: Result) -> Frame:
        answer = result.answer
        shapes = tuple([(tensor.datatype, tensor.shape, len(tensor.data)) for tensor in answer.outputs])
        frame = self._frames.get((answer.variant, shapes))
        if frame is None:
            if len(self._frames) >= _MOST_FRAMES:
                self._frames.clear()
            frame = self._frames[answer.variant, shapes] = self._make(result)
        return frame
