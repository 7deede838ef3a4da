#!/usr/bin/python3
"""Clients that do not stay for an answer, as many times as they are told, in every way to leave.

Arguments: the TCP address, the Unix socket, the target, how many tries. Says as JSON how often each
way was gone, and what those saw that did read. Its text is given to the interpreter, since the user
that runs it may not be able to read this tree.
"""

from __future__ import annotations

import json
import os
import socket
import struct
import sys
from collections import Counter
from collections.abc import Callable

_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: what is closed is reset
_WORKERS = 4


class Client:
    def __init__(self, tcp: str, unix: str, target: str) -> None:
        host, _, port = tcp.rpartition(":")
        self._tcp = (host, int(port))
        self._unix = unix
        self.request = f"GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
        self.statuses: Counter[str] = Counter()
        self.content = False

    def tcp(self) -> socket.socket:
        return socket.create_connection(self._tcp, timeout=30)

    def unix(self) -> socket.socket:
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(30)
        client.connect(self._unix)
        return client

    def read(self, client: socket.socket) -> None:
        received = bytearray()
        try:
            while piece := client.recv(65536):
                received += piece
        except ConnectionResetError:
            pass
        status = received[9:12].decode() if received.startswith(b"HTTP/1.1 ") else "nothing"
        self.statuses[status] += 1
        _, _, body = received.partition(b"\r\n\r\n")
        self.content |= bool(body) and not body.startswith(b'{"errors"')


def closes(client: Client) -> None:
    with client.tcp() as connection:
        connection.sendall(client.request)


def resets(client: Client) -> None:
    with client.tcp() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        connection.sendall(client.request)


def asks_many_and_closes(client: Client) -> None:
    with client.tcp() as connection:
        connection.sendall(client.request * 5)


def closes_in_the_middle(client: Client) -> None:
    with client.tcp() as connection:
        connection.sendall(client.request[:40])


def half_closes(client: Client) -> None:
    with client.tcp() as connection:
        connection.sendall(client.request)
        connection.shutdown(socket.SHUT_WR)
        client.read(connection)


def closes_unix(client: Client) -> None:
    with client.unix() as connection:
        connection.sendall(client.request)


def half_closes_unix(client: Client) -> None:
    with client.unix() as connection:
        connection.sendall(client.request)
        connection.shutdown(socket.SHUT_WR)
        client.read(connection)


WAYS: list[Callable[[Client], None]] = [
    closes, closes, closes, resets, resets, asks_many_and_closes, closes_in_the_middle,
    half_closes, half_closes, closes_unix, half_closes_unix,
]  # fmt: skip


def work(client: Client, tries: range) -> dict:
    gone: Counter[str] = Counter()
    for i in tries:
        way = WAYS[i % len(WAYS)]
        try:
            way(client)
        except (BrokenPipeError, ConnectionResetError):
            pass  # the daemon was faster
        gone[way.__name__] += 1
    return {"tries": gone, "statuses": client.statuses, "content": client.content}


def main() -> None:
    tcp, unix, target, count = sys.argv[1:]
    pipes = []
    for worker in range(_WORKERS):
        read_end, write_end = os.pipe()
        if os.fork() == 0:
            told = work(Client(tcp, unix, target), range(worker, int(count), _WORKERS))
            os.write(write_end, json.dumps(told).encode())
            os._exit(0)
        os.close(write_end)
        pipes.append(read_end)
    sums: dict = {"tries": Counter(), "statuses": Counter(), "content": False}
    for pipe in pipes:
        told = json.loads(os.read(pipe, 65536))
        for key in ("tries", "statuses"):
            sums[key].update(told[key])
        sums["content"] |= told["content"]
        os.wait()
    json.dump(sums, sys.stdout)


if __name__ == "__main__":
    main()
