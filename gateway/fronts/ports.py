"""Ports that several processes listen on: the kernel spreads connections over their sockets (SO_REUSEPORT).

A port that somebody else has is still an error, also when it is another gateway with fronts: the first socket binds
alone, and only then lets others join it. All sockets for HTTP are made by the primary and handed to the fronts, so
connections that came while a front was down are not lost: they wait, and the primary takes them.
"""

from __future__ import annotations

import socket

from gateway.httpd.server import listen


def listen_together(host: str, port: int, count: int) -> list[socket.socket]:
    """`count` sockets on one TCP port (0: any free one), bound, not yet listening. Raises OSError."""
    first = listen(host, port)
    sockets = [first]
    if count == 1:
        return sockets
    try:
        first.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        for _ in range(count - 1):
            other = socket.socket(first.family, first.type, first.proto)
            sockets.append(other)
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            other.bind(first.getsockname())
            other.setblocking(False)
    except OSError:
        close_all(sockets)
        raise
    return sockets


def reserve(host: str, port: int) -> socket.socket:
    """Take a port (0: any free one) for sockets that will share it, gRPC's; it listens to nothing. Raises OSError."""
    reserved = listen(host, port)
    reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    return reserved


def close_all(sockets: list[socket.socket]) -> None:
    for each in sockets:
        each.close()
