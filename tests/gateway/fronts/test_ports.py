"""A shared port: spread over its sockets, and refused to everybody else."""

from __future__ import annotations

import socket

import pytest

from gateway.fronts.ports import close_all, listen_together, reserve
from gateway.httpd.server import listen


def accepted(listener: socket.socket) -> int:
    count = 0
    try:
        while True:
            listener.accept()[0].close()
            count += 1
    except BlockingIOError:
        return count


def test_every_socket_gets_some_of_the_connections():
    sockets = listen_together("127.0.0.1", 0, 3)
    for each in sockets:
        each.listen(512)
    clients = [socket.create_connection(sockets[0].getsockname()) for _ in range(300)]
    counts = [accepted(each) for each in sockets]
    assert sum(counts) == 300
    assert min(counts) > 0
    close_all([*clients, *sockets])


@pytest.mark.parametrize("count", [1, 2])
def test_a_port_that_is_shared_is_taken_for_others(count):
    sockets = listen_together("127.0.0.1", 0, 2)
    sockets[0].listen()
    with pytest.raises(OSError, match="in use"):
        listen_together("127.0.0.1", sockets[0].getsockname()[1], count)
    close_all(sockets)


def test_a_reserved_port_is_for_those_that_share_it_and_gets_no_connection_itself():
    reserved = reserve("127.0.0.1", 0)
    where = reserved.getsockname()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(where)
    sharing = socket.socket()
    sharing.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    sharing.bind(where)
    sharing.listen()
    sharing.setblocking(False)
    with pytest.raises(OSError, match="in use"):
        listen("127.0.0.1", where[1])
    clients = [socket.create_connection(where) for _ in range(20)]
    assert accepted(sharing) == 20
    close_all([*clients, sharing, reserved])
