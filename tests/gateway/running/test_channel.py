"""Channels whose other end dies: what it had said is heard, and nobody else is harmed."""

from __future__ import annotations

import asyncio
import socket

from gateway.running.channel import Channel, Channels
from gateway.running.post import Post
from gateway.running.slots import SlotMemory


def pair() -> tuple[socket.socket, socket.socket]:
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def test_a_gateway_that_dies_with_answers_unread_ends_its_own_channel_and_no_other():
    first, gateway = pair()
    second, front = pair()
    channels = Channels(Channel(first, SlotMemory.create(1, 4096)))
    lost = Channel(second, SlotMemory.create(1, 4096))
    channels.add(lost)
    front.send(b"a batch")
    lost.send(b"an answer")
    front.close()
    assert channels.next() == (lost, b"a batch")
    assert channels.next() == (lost, b"")
    channels.remove(lost)
    gateway.send(b"goes on")
    assert channels.next()[1] == b"goes on"


def test_the_last_words_of_a_runner_that_died_with_a_batch_unread_are_heard():
    async def test():
        ours, theirs = pair()
        heard: list[bytes] = []
        post = Post(ours, heard.append)
        post.send(b"a batch it never turned to")
        theirs.send(b"the answer to the one before")
        theirs.close()
        post.end()  # its death may be noticed before its words are
        assert heard == [b"the answer to the one before"]

    asyncio.run(test())
