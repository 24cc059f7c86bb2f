"""ModelInferRequests that came before but for the bytes of their tensors: read, checked and framed once.

What a message says around its raw tensors is found at fixed places as long as its length and the bytes around them are
the same. Then everything found out about the first such message holds, and what it is answered with differs only in the
tensors (gateway/codec/v2_known.py does the same for HTTP). Remembered are requests without an id whose tensors are all
raw and the last thing in the message, which is how clients write them.
"""

from __future__ import annotations

from itertools import pairwise

from gateway.codec.again import MOST, MOST_BYTES, Frames, Part, cut
from gateway.grpc import codec, wire
from gateway.grpc.codec import Plan, Request
from gateway.routing.ranking import VersionRoute
from gateway.serve import Result
from gateway.tensors import Checked, InputCheck, Tensor

_MOST_ALIKE = 16
"""Of one length: they are looked through one by one."""


class Known:
    """One message, but for its tensors, at one version."""

    __slots__ = ("_around", "_check", "_checked", "_frames", "_parts", "plan")

    def __init__(
        self, check: InputCheck, checked: Checked, plan: Plan, around: list[tuple[int, bytes]], parts: list[Part]
    ) -> None:
        """`around`: the bytes around the tensors, and where they begin."""
        self.plan = plan
        self._check, self._checked = check, checked
        self._around, self._parts = around, parts
        self._frames = Frames(_frame)

    def fits(self, data: bytes) -> bool:
        """Whether a message of the same length is such a one."""
        for start, words in self._around:  # noqa: SIM110 - a generator would cost more than the rest
            if not data.startswith(words, start):
                return False
        return True

    def checked(self, data: bytes, check: InputCheck) -> Checked | None:
        """The inputs of a message that fits; None when it is now another version that answers."""
        if check is not self._check:
            return None
        return cut(memoryview(data), self._parts, self._checked)

    def answer(self, result: Result) -> bytes:
        """The serialized answer."""
        parts: list[bytes | memoryview] = []
        for before, tensor in zip(self._frames.around(result), result.answer.outputs, strict=True):
            parts += (before, tensor.data)
        return b"".join(parts)


class Memory:
    """Bounded; begins anew when it is full. By the length of the message."""

    def __init__(self) -> None:
        self._known: dict[int, list[Known]] = {}
        self._count = 0

    def find(self, data: bytes) -> Known | None:
        for known in self._known.get(len(data), ()):
            if known.fits(data):
                return known
        return None

    def learn(self, data: bytes, request: Request, route: VersionRoute, check: InputCheck) -> None:
        """Remember a request that was found good, if others like it must be good for sure."""
        plan, raw = request.plan, request.raw
        if request.id or plan.outputs or len(raw) != len(plan.inputs) or not raw or not route.signature.outputs:
            return
        inputs = plan.inputs
        if any(given.datatype == "BYTES" or given.typed is not None or given.place is not None for given in inputs):
            return
        spans = _spans(data, [len(entry) for entry in raw])
        if spans is None or spans[0][0] > MOST_BYTES:
            return
        named = {
            given.name: Part(start, end, given.datatype, given.shape)
            for given, (start, end) in zip(inputs, spans, strict=True)
        }
        parts = [named[spec.name] for spec in check.signature.inputs]
        checked = check([(name, Tensor(at.datatype, at.shape, data[at.start : at.end])) for name, at in named.items()])
        checked = Checked((), checked.rows, checked.nbytes, checked.key)
        around = [(0, data[: spans[0][0]])]
        around += [(before[1], data[before[1] : after[0]]) for before, after in pairwise(spans)]
        if self._count >= MOST:
            self._known.clear()
            self._count = 0
        others = [known for known in self._known.get(len(data), ()) if not known.fits(data)]
        self._known[len(data)] = [Known(check, checked, plan, around, parts), *others[: _MOST_ALIKE - 1]]
        self._count += 1


def _spans(data: bytes, sizes: list[int]) -> list[tuple[int, int]] | None:
    """Where tensors of these sizes lie if they are the last thing in a message; None when they are not."""
    spans: list[tuple[int, int]] = []
    end = len(data)
    for size in reversed(sizes):
        start = end - size
        tag = wire.field(wire.RAW_INPUT, size)
        if start < len(tag) or not data.startswith(tag, start - len(tag)):
            return None
        spans.append((start, end))
        end = start - len(tag)
    return spans[::-1]


def _frame(result: Result) -> list[bytes]:
    """What comes before each output of an answer."""
    route, answer = result.route, result.answer
    outputs = zip(route.signature.outputs, answer.outputs, strict=True)
    told = tuple((spec.name, tensor.datatype, tensor.shape) for spec, tensor in outputs)
    head = codec.head(route, answer.variant, told)
    frame = [wire.field(wire.RAW_OUTPUT, len(tensor.data)) for tensor in answer.outputs]
    return [head + frame[0], *frame[1:]]
