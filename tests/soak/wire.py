"""One client's connection, that says how an answer ended: whole, cut, or by its own will."""

from __future__ import annotations

import hashlib
import socket
import struct
import time
from collections.abc import Callable

from history import Asked

Address = tuple[str, int] | str
PIECE = 256 * 1024
MOST_HEAD = 64 * 1024


class _Cut(Exception):
    """The peer has ended the connection before the end of its answer."""


class _Left(Exception):
    """This client has had enough."""


class Wire:
    """Kept alive between requests where both sides want that. One thread's."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._socket: socket.socket | None = None
        self._received = b""
        self._until = 0.0

    def close(self, reset: bool = False) -> None:
        if self._socket:
            if reset:
                linger = struct.pack("ii", 1, 0)
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self._socket.close()
            self._socket = None
        self._received = b""

    def ask(
        self,
        asked: Asked,
        target: str,
        headers: dict[str, str] | None = None,
        body: bytes = b"",
        leave_after: int | None = None,
        pause: Callable[[], float] | None = None,
    ) -> bytes:
        """Fills `asked` in and gives the body, or what came of it. `leave_after`: goes away after
        so many bytes of the body; `pause`: how many seconds before each piece of it."""
        lines = [f"{asked.method} {target} HTTP/1.1", "Host: localhost"]
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        if body:
            lines.append(f"Content-Length: {len(body)}")
        text = ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + body
        return self.send(asked, text, leave_after, pause)

    def send(
        self,
        asked: Asked,
        text: bytes,
        leave_after: int | None = None,
        pause: Callable[[], float] | None = None,
    ) -> bytes:
        self._until = time.monotonic() + (asked.patience or 300.0)
        taken = bytearray()
        for attempt in range(2):
            reused = self._socket is not None
            try:
                self._connect()
            except OSError:
                asked.outcome = "refused"
                break
            try:
                self._arm()
                self._socket.sendall(text)  # type: ignore[union-attr]
            except OSError:
                pass  # It may have answered before the end of the request.
            try:
                self._take(asked, taken, leave_after, pause)
                asked.outcome = "whole"
            except _Left:
                asked.outcome = "left"
            except TimeoutError:
                asked.outcome = "timeout"
            except (_Cut, OSError):
                asked.outcome = "cut"
                # An idle connection may end at the very moment at which it is used again.
                if reused and not asked.status and not self._received and attempt == 0:
                    self.close()
                    continue
            break
        if asked.outcome != "whole":
            self.close(reset=asked.outcome == "left" and len(taken) % 2 == 1)
        asked.received = len(taken)
        asked.end = time.time()
        return bytes(taken)

    # ---- the answer ----------------------------------------------------------------------------

    def _take(
        self,
        asked: Asked,
        taken: bytearray,
        leave_after: int | None,
        pause: Callable[[], float] | None,
    ) -> None:
        while b"\r\n\r\n" not in self._received:
            if len(self._received) > MOST_HEAD:
                raise _Cut
            self._more()
        head, _, self._received = self._received.partition(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        words = lines[0].split(" ")
        if len(words) < 2 or not words[1].isdecimal():
            raise _Cut
        fields = {n.lower(): v.strip() for n, _, v in (line.partition(":") for line in lines[1:])}
        asked.status = int(words[1])
        asked.cache_status = fields.get("cache-status", "")
        asked.served = fields.get("docker-content-digest", "")
        asked.age = int(fields.get("age", -1))
        asked.length = int(fields.get("content-length", -1))
        ends = fields.get("connection", "").lower() == "close"
        chunked = fields.get("transfer-encoding", "").lower() == "chunked"
        if asked.method != "HEAD" and asked.status not in (204, 304):
            if chunked:
                self._take_chunks(taken, leave_after)
            elif asked.length >= 0:
                self._take_bytes(taken, asked.length, leave_after, pause)
            else:
                self._take_to_end(taken)
        if ends:
            self.close()

    def _take_bytes(
        self,
        taken: bytearray,
        size: int,
        leave_after: int | None = None,
        pause: Callable[[], float] | None = None,
    ) -> None:
        begin = len(taken)
        while len(taken) - begin < size:
            if leave_after is not None and len(taken) >= leave_after:
                raise _Left
            if not self._received:
                if pause:
                    time.sleep(pause())
                self._more()
            piece = self._received[: size - (len(taken) - begin)]
            self._received = self._received[len(piece) :]
            taken += piece

    def _take_chunks(self, taken: bytearray, leave_after: int | None) -> None:
        while True:
            while b"\r\n" not in self._received:
                self._more()
            line, _, self._received = self._received.partition(b"\r\n")
            size = int(line.partition(b";")[0], 16)
            self._take_bytes(taken, size, leave_after)
            end = bytearray()
            self._take_bytes(end, 2)
            if end != b"\r\n":
                raise _Cut
            if size == 0:
                return

    def _take_to_end(self, taken: bytearray) -> None:
        while True:
            taken += self._received
            self._received = b""
            try:
                self._more()
            except _Cut:
                return

    # ---- the socket ----------------------------------------------------------------------------

    def _connect(self) -> None:
        if self._socket:
            return
        unix = isinstance(self._address, str)
        found = socket.socket(socket.AF_UNIX if unix else socket.AF_INET)
        try:
            found.settimeout(max(0.001, self._until - time.monotonic()))
            found.connect(self._address)
        except OSError:
            found.close()
            raise
        self._socket = found

    def _arm(self) -> None:
        assert self._socket
        self._socket.settimeout(max(0.001, self._until - time.monotonic()))

    def _more(self) -> None:
        self._arm()
        assert self._socket
        more = self._socket.recv(PIECE)
        if not more:
            raise _Cut
        self._received += more


def digest_matches(content: bytes, digest: str) -> bool:
    return digest == "sha256:" + hashlib.sha256(content).hexdigest()
