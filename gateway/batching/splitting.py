"""A request with more rows than a batch should have: cut into parts that run as batches of their own, joined in order.

The request keeps one answer, one deadline and one end: when a part fails, or the client gives up, the other parts are
withdrawn, and whatever of them has not run never will. Parts may run on several runners at the same time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import msgspec

from gateway.batching.batch import Answer
from gateway.tensors import Checked, Tensor, row_ends


def cut(checked: Checked, rows: int) -> list[Checked]:
    """The request in parts of `rows` rows (the last one may be smaller), without a copy of its tensors."""
    ends = [row_ends(tensor.datatype, tensor.data, checked.rows) for tensor in checked.inputs]
    return [_part(checked, ends, first, min(first + rows, checked.rows)) for first in range(0, checked.rows, rows)]


def _part(checked: Checked, ends: Sequence[Sequence[int]], first: int, last: int) -> Checked:
    tensors = []
    for tensor, end in zip(checked.inputs, ends, strict=True):
        data = memoryview(tensor.data)[end[first - 1] if first else 0 : end[last - 1]]
        tensors.append(Tensor(tensor.datatype, (last - first, *tensor.shape[1:]), data))
    return Checked(tuple(tensors), last - first, sum(len(tensor.data) for tensor in tensors), checked.key)


def join(answers: Sequence[Answer], rows: Sequence[int]) -> Answer | None:
    """One answer of the answers to all parts, which have `rows` rows each; None when they do not fit together.

    It names the variant that answered most rows, and lasts from the first part's moments to the last one's.
    """
    outputs = []
    for tensors in zip(*(answer.outputs for answer in answers), strict=True):
        kinds = {(tensor.datatype, tensor.shape[1:]) for tensor in tensors}
        if len(kinds) > 1 or any(tensor.shape[:1] != (n,) for tensor, n in zip(tensors, rows, strict=True)):
            return None
        datatype, trailing = next(iter(kinds))
        outputs.append(Tensor(datatype, (sum(rows), *trailing), b"".join(tensor.data for tensor in tensors)))
    by_variant: dict[str, int] = {}
    for answer, count in zip(answers, rows, strict=True):
        by_variant[answer.variant] = by_variant.get(answer.variant, 0) + count
    most = max(by_variant, key=lambda variant: by_variant[variant])
    named = next(answer for answer in answers if answer.variant == most)
    return msgspec.structs.replace(
        named,
        outputs=outputs,
        sent_ns=min(answer.sent_ns for answer in answers),
        start_ns=min(answer.start_ns for answer in answers),
        end_ns=max(answer.end_ns for answer in answers),
        answered_ns=max(answer.answered_ns for answer in answers),
        batch_rows=max(answer.batch_rows for answer in answers),
    )


class Cut:
    """The answer of a request in parts of `rows` rows each. `whole` runs it uncut: what is left when the answers to the
    parts do not fit together."""

    def __init__(self, answer: asyncio.Future[Answer], rows: Sequence[int], whole: Callable[[], None]) -> None:
        self.answer = answer
        self.parts = [Part(self) for _ in rows]
        self._rows = rows
        self._whole = whole
        self._missing = len(rows)

    def answered(self) -> None:
        """Another part has its answer."""
        self._missing -= 1
        if self._missing:
            return
        joined = join([part.result for part in self.parts if part.result is not None], self._rows)
        if joined is None:
            self._whole()
        else:
            self.answer.set_result(joined)


class Part:
    """Where a part is answered (the `Reply` of batch.py): nobody waits for it any longer than for the whole."""

    __slots__ = ("_cut", "result")

    def __init__(self, cut: Cut) -> None:
        self._cut = cut
        self.result: Answer | None = None

    def done(self) -> bool:
        return self.result is not None or self._cut.answer.done()

    def set_result(self, answer: Answer) -> None:
        self.result = answer
        self._cut.answered()

    def set_exception(self, error: Exception) -> None:
        self._cut.answer.set_exception(error)
