"""Requests as bytes on a socket, for what a proper client would not send or would not show."""

from __future__ import annotations

import socket
from dataclasses import dataclass, field

TIMEOUT = 30.0


@dataclass
class RawReply:
    """What came until the peer ended the connection, and how it ended it."""

    received: bytes
    ended: str  # fin | rst | timeout
    version: str = ""
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)  # lower-case names
    body: bytes = b""

    def __post_init__(self) -> None:
        head, _, self.body = self.received.partition(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        words = lines[0].split(" ")
        if len(words) >= 2 and words[1].isdecimal():
            self.version, self.status = words[0], int(words[1])
        for line in lines[1:]:
            name, _, value = line.partition(":")
            self.headers[name.lower()] = value.strip()

    def is_whole(self) -> bool:
        length = self.headers.get("content-length", "")
        return length.isdecimal() and len(self.body) == int(length)


def exchange(address: str, request: bytes, timeout: float = TIMEOUT) -> RawReply:
    """Sends all of it, then reads until the peer ends; the request should ask it to close."""
    host, _, port = address.rpartition(":")
    received = bytearray()
    with socket.create_connection((host, int(port)), timeout=timeout) as connection:
        try:
            connection.sendall(request)
        except (BrokenPipeError, ConnectionResetError):
            pass  # It has answered before the end of the request; the answer is what counts.
        while True:
            try:
                more = connection.recv(1 << 20)
            except TimeoutError:
                return RawReply(bytes(received), "timeout")
            except ConnectionResetError:
                return RawReply(bytes(received), "rst")
            if not more:
                return RawReply(bytes(received), "fin")
            received += more


def request(address: str, method: str, target: str, **headers: str) -> RawReply:
    lines = [f"{method} {target} HTTP/1.1", f"Host: {address}", "Connection: close"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return exchange(address, ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))
