"""One batch: the requests that run together, how their inputs lie in a slot, and how the outputs are parted again.

Every item owns the future its request waits on, so there is no table in which an answer could get lost: whoever has
the item can answer it, and an item whose future is done (cancelled, late) simply takes no answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

import msgspec

from gateway.counts import Counts
from gateway.running.slots import aligned
from gateway.running.wire import Done, Place
from gateway.tensors import Checked, Tensor, row_ends


class Answer(msgspec.Struct, frozen=True, gc=False):
    """Outputs in signature order, who made them, and the moments (monotonic ns) at which things happened."""

    outputs: list[Tensor]
    variant: str
    target: str
    why: str
    queued_ns: int
    sent_ns: int
    start_ns: int
    end_ns: int
    answered_ns: int
    """When the outputs of the batch had been parted: the end of its last stage."""
    batch_rows: int
    counts: Counts
    """Where the answered request is to be counted."""


class Reply(Protocol):
    """Where an item is answered: a future, or a part of one that was cut (splitting.py)."""

    def done(self) -> bool:
        """Whether nobody waits for it any more."""
        ...

    def set_result(self, answer: Answer, /) -> None: ...

    def set_exception(self, error: Exception, /) -> None: ...


class Item:
    """One request in the batcher. `gone()` resolves when its client leaves; None when nobody can tell.

    `level`: its place in the order of requests that wait (line.py).
    """

    __slots__ = (
        "alone", "answer", "attempts", "avoid", "deadline_ns", "gone", "inputs", "key", "level", "nbytes", "pin",
        "queued_ns", "rows", "watch",
    )  # fmt: skip

    def __init__(
        self,
        checked: Checked,
        answer: Reply,
        queued_ns: int,
        deadline_ns: int,
        pin: str | None,
        gone: Callable[[], Awaitable[Any]] | None,
        level: int,
    ) -> None:
        self.inputs = checked.inputs
        self.rows = checked.rows
        self.nbytes = checked.nbytes
        self.key = checked.key
        self.answer = answer
        self.queued_ns = queued_ns
        self.deadline_ns = deadline_ns
        self.pin = pin
        self.gone = gone
        self.level = level
        self.alone = checked.key is None
        self.avoid: str | None = None
        self.attempts = 0
        self.watch: asyncio.Task[None] | None = None

    def fail(self, error: Exception) -> None:
        if not self.answer.done():
            self.answer.set_exception(error)


def fill(slot: memoryview, items: Sequence[Item]) -> tuple[list[Place], int]:
    """Copy the inputs of all items into the slot; where they lie, and the offset behind them."""
    first = items[0]
    if len(items) == 1:
        places, offset = [], 0
        for nth, tensor in enumerate(first.inputs):
            size = len(tensor.data)
            slot[offset : offset + size] = tensor.data
            places.append(Place(nth, tensor.datatype, tensor.shape, offset, size))
            offset = aligned(offset + size)
        return places, offset
    rows = sum(item.rows for item in items)
    places, offset = [], 0
    for nth, tensor in enumerate(first.inputs):
        start = offset
        for item in items:
            data = item.inputs[nth].data
            end = offset + len(data)
            slot[offset:end] = data
            offset = end
        places.append(Place(nth, tensor.datatype, (rows, *tensor.shape[1:]), start, offset - start))
        offset = aligned(offset)
    return places, offset


def slot_bytes_needed(items: Sequence[Item]) -> int:
    """Bytes `fill` will use, at most."""
    return sum(aligned(item.nbytes) for item in items) + 64 * len(items[0].inputs)


def part(slot: memoryview, done: Done, items: Sequence[Item]) -> list[list[Tensor]] | None:
    """The outputs of each item, copied out of the slot; None when the outputs cannot be parted by rows.

    Raises WireError for texts that are not as many as the shape says. That tensors lie in the slot is known.
    """
    if len(items) == 1:
        return [[Tensor(p.datatype, p.shape, bytes(slot[p.offset : p.offset + p.nbytes])) for p in done.places]]
    rows = sum(item.rows for item in items)
    if any(not place.shape or place.shape[0] != rows for place in done.places):
        return None
    answers: list[list[Tensor]] = [[] for _ in items]
    for place in done.places:
        _, datatype, shape, offset, nbytes = place
        ends = row_ends(datatype, slot[offset : offset + nbytes], rows) if datatype == "BYTES" else None
        row_bytes = nbytes // rows
        trailing = shape[1:]
        row = 0
        start = offset
        for item, outputs in zip(items, answers, strict=True):
            row += item.rows
            end = offset + (ends[row - 1] if ends is not None else row * row_bytes)
            outputs.append(Tensor(datatype, (item.rows, *trailing), bytes(slot[start:end])))
            start = end
    return answers
