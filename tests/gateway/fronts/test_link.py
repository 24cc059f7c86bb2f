"""The line between two gateway processes: answers, refusals, descriptors, long messages, the end."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gateway.errors import AlreadyExists, BadRequest, GatewayError
from gateway.fronts.link import Link, LinkDown, first_message


def linked(verbs: dict[str, Any], test: Callable[[Link, Link], Any]) -> None:
    async def run() -> None:
        one, other = (Link(end) for end in socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET))
        other.listen(verbs, other.close)
        one.listen({}, one.close)
        await test(one, other)
        one.close()
        other.close()

    asyncio.run(asyncio.wait_for(run(), 20))


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def refuse(text: str) -> None:
    raise AlreadyExists(text)


async def later(value: Any) -> Any:
    await asyncio.sleep(0.01)
    return value


def test_questions_are_answered_each_with_its_own_answer_in_whatever_order():
    async def test(link: Link, _: Link) -> None:
        asked = [link.ask("later" if n % 3 else "now", value=n) for n in range(200)]
        assert await asyncio.gather(*asked) == list(range(200))

    linked({"now": lambda value: value, "later": later}, test)


def test_a_refusal_arrives_as_what_it_was_and_an_accident_as_an_error():
    async def test(link: Link, _: Link) -> None:
        with pytest.raises(AlreadyExists, match="it is there"):
            await link.ask("refuse", text="it is there")
        with pytest.raises(GatewayError):
            await link.ask("no such verb")
        with pytest.raises(BadRequest):
            await link.ask("bad")
        assert await link.ask("now", value=1) == 1

    async def bad() -> None:
        raise BadRequest("no")

    linked({"refuse": refuse, "bad": bad, "now": lambda value: value}, test)


def test_a_message_of_megabytes_arrives_whole_among_small_ones():
    async def test(link: Link, _: Link) -> None:
        long = "x" * 5_000_000
        answers = await asyncio.gather(link.ask("now", value=1), link.ask("now", value=long), link.ask("now", value=2))
        assert answers == [1, long, 2]

    before = descriptors()
    linked({"now": lambda value: value}, test)
    assert descriptors() <= before


def test_descriptors_travel_with_their_message_and_in_order():
    got: list[str] = []

    def take(name: str, fds: list[int]) -> None:
        for fd in fds:
            got.append(name + os.read(fd, 10).decode())
            os.close(fd)

    async def test(link: Link, _: Link) -> None:
        pipes = [os.pipe() for _ in range(30)]
        for n, (reading, writing) in enumerate(pipes):
            os.write(writing, str(n).encode())
            link.tell("take", [reading], name=f"pipe {n}: ")
            os.close(reading)
            os.close(writing)
        await link.ask("now")
        assert got == [f"pipe {n}: {n}" for n in range(30)]

    linked({"take": take, "now": lambda: None}, test)


def test_whoever_waits_is_told_that_the_other_end_has_gone():
    async def test(link: Link, other: Link) -> None:
        waiting = asyncio.ensure_future(link.ask("never"))
        await asyncio.sleep(0.01)
        other.close()
        with pytest.raises(LinkDown):
            await waiting
        with pytest.raises(LinkDown):
            await link.ask("never")
        link.tell("never")

    linked({"never": asyncio.Event().wait}, test)


def test_an_answer_that_does_not_come_is_not_waited_for_for_ever():
    async def test(link: Link, _: Link) -> None:
        with pytest.raises(LinkDown, match="no answer within"):
            await link.ask("never", answer_s=0.05)
        assert await link.ask("now", value=3) == 3

    linked({"never": asyncio.Event().wait, "now": lambda value: value}, test)


def test_the_first_word_can_be_waited_for_without_a_loop():
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

    async def greet() -> None:
        Link(ours).tell("hello", [0], settings={"port": 1})

    asyncio.run(greet())
    content, fds = first_message(theirs)
    assert content == {"settings": {"port": 1}}
    assert len(fds) == 1
    os.close(fds[0])
    ours.close()
    with pytest.raises(LinkDown):
        first_message(theirs)
    theirs.close()
