"""V2 requests whose header came before, byte for byte, to the same model version: read, checked and framed once.

Clients send the same header again and again and only the tensors behind it differ. Of a header without an id whose
tensors all lie in the body, everything that was found out about it holds for every body of the right length: names,
types, shapes and sizes, that they suit the signature, which outputs are wanted and that they can be given. What such
a request is answered with differs only in the tensors as well, as long as the same variant gives the same shapes.

The memory belongs to one version (gateway/tensors.InputCheck), so nothing found out about one is used for another.
"""

from __future__ import annotations

from typing import NamedTuple

from gateway.codec.again import MOST, MOST_BYTES, Frames, Part, cut
from gateway.codec.v2_header import Plan, plan_of
from gateway.codec.v2_reply import JOIN_BELOW, binary_text
from gateway.codec.v2_request import Request
from gateway.httpd.lines import Header, rendered
from gateway.serve import Result
from gateway.tensors import Checked, InputCheck


class Frame(NamedTuple):
    """An answer but for its tensors. `text`: the JSON; `order`: the outputs that follow it; `nbytes`: of it all.

    `headers` and how they look on the wire: all that are the same each time.
    """

    text: bytes
    order: tuple[int, ...]
    nbytes: int
    headers: list[Header]
    wire: bytes

    @property
    def json_bytes(self) -> int | None:
        """As in v2_reply.Body."""
        return len(self.text) if self.order else None

    def around(self, result: Result) -> list[bytes | memoryview]:
        """The body of an answer, in one piece if it is small."""
        outputs = result.answer.outputs
        chunks = [self.text, *[outputs[nth].data for nth in self.order]]
        return chunks if self.nbytes >= JOIN_BELOW else [b"".join(chunks)]


class Known:
    """One header at one version."""

    __slots__ = ("_found", "_parts", "frame", "nbytes", "plan")

    def __init__(self, plan: Plan, parts: tuple[Part, ...], found: Checked, wanted: tuple[int, ...]) -> None:
        self.plan = plan
        self.nbytes = max((part.end for part in parts), default=0)
        """Of the tensors behind the header."""
        self.frame = Frames(lambda result: _frame(result, wanted)).around
        """What goes around the outputs of a result."""
        self._parts = parts
        self._found = Checked((), found.rows, found.nbytes, found.key)

    def checked(self, body: bytes, at: int) -> Checked:
        """The inputs of a body whose header ends at `at` and which is `nbytes` longer."""
        return cut(memoryview(body)[at:], self._parts, self._found)


def learn(check: InputCheck, body: bytes, at: int, request: Request) -> None:
    """Remember a request that was found good, if others that begin with the same header must be good for sure.

    Its header ends at `at`.
    """
    if at > MOST_BYTES or request.id:
        return
    plan = plan_of(body, at)
    if any(size is None or given.datatype == "BYTES" for given, size in plan.inputs):
        return
    wanted = _wanted(check, request)
    if wanted is None:
        return
    places, start = {}, 0
    for given, size in plan.inputs:
        end = start + (size or 0)
        places[given.name] = Part(start, end, given.datatype, given.shape)
        start = end
    parts = tuple(places[spec.name] for spec in check.signature.inputs)
    if len(check.known) >= MOST:
        check.known.clear()
    check.known[body[:at]] = Known(plan, parts, check(request.inputs), wanted)


def _wanted(check: InputCheck, request: Request) -> tuple[int, ...] | None:
    """The positions of the outputs asked for; None when they are not all wanted as plain binary."""
    names = [spec.name for spec in check.signature.outputs]
    if request.outputs is None:
        return tuple(range(len(names))) if request.binary else None
    if any(not asked.binary or asked.classes or asked.place is not None for asked in request.outputs):
        return None
    return tuple(names.index(asked.name) for asked in request.outputs)


def _frame(result: Result, wanted: tuple[int, ...]) -> Frame:
    route, answer = result.route, result.answer
    text = binary_text(route, answer, wanted)
    order = tuple(nth for nth in wanted if len(answer.outputs[nth].data))
    nbytes = len(text) + sum(len(answer.outputs[nth].data) for nth in order)
    headers = reply_headers(len(text) if order else None)
    headers += [(b"content-length", b"%d" % nbytes), (b"forgeway-variant", answer.variant.encode())]
    return Frame(text, order, nbytes, headers, rendered(headers))


def reply_headers(json_bytes: int | None) -> list[Header]:
    """What the headers say about the form of a body (v2_reply.Body)."""
    if json_bytes is None:
        return [(b"content-type", b"application/json")]
    return [
        (b"content-type", b"application/octet-stream"),
        (b"inference-header-content-length", b"%d" % json_bytes),
    ]
