"""A registry on loopback that is as rough as a test wants: slow, far, cut, silent, gone, or lying.

    origin = RoughOrigin(rate=40e6, latency=0.02)     # of each connection; of each request
    origin.add_blob(content)                          # bytes or a file; gives the digest
    origin.bend = lambda asked, answer: ...           # changes an answer before it leaves
    origin.gate.close(begin, end)                     # these bytes of every blob are kept back
    origin.refuse(); origin.keep_silent(); origin.come_back()

Every request is in `asked`, with the bytes of its body that have left. It speaks HTTP/1.1 without
TLS, a thread for a connection, and sends out of memory or a mapped file, so that it is faster than
what it is to test. The host `localhost`, and `data.x.localhost` for a registry at `x.localhost`,
play the storage that `redirects` lead to, by links that may expire; every other host plays the
registry.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import re
import socket
import struct
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from origin import Image

_RANGE = re.compile(r"bytes=(?:(\d+)-(\d*)|-(\d+))\Z")
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_PIECE = 256 * 1024
# What a connection at a limited rate may have saved up while nobody read from it.
_BURST_SECONDS = 0.02
_TCP_INFO_BYTES_ACKED = 120  # where it stands in struct tcp_info

_TLS = 0x16  # the first byte of a handshake

Content = bytes | memoryview


@dataclass
class Asked:
    """One request, and what became of it."""

    number: int
    connection: int
    method: str
    host: str
    path: str
    headers: dict[str, str]  # lower-case names
    time: float  # monotonic
    digest: str = ""
    storage: bool = False
    status: int = 0
    sent: int = 0  # bytes of the body that have left this machine's side of the connection
    done: bool = False

    @property
    def range(self) -> str:
        return self.headers.get("range", "")

    def is_transfer(self) -> bool:
        return self.method == "GET" and bool(self.digest)


@dataclass
class Answer:
    """What will be sent. `body` is joined; Content-Length is its length unless set by hand."""

    status: int
    headers: dict[str, str | list[str]]
    body: list[Content] = field(default_factory=list)
    content: Content = b""  # all of the blob
    begin: int = 0  # where in the blob the body begins
    cut: int | None = None  # ends after so many bytes of the body; -1: before the head
    how: str = "fin"  # fin | rst | silence: what follows the cut
    drip: float = 0  # seconds before each byte after the cut, instead
    raw: bytes | None = None  # this in the place of head and body
    chunked: bool = False
    last_chunk: bytes = b"0\r\n\r\n"

    @property
    def end(self) -> int:
        return self.begin + sum(map(len, self.body))


# May change the answer; the request says to whom it goes.
Bend = Callable[[Asked, Answer], None]


class Gate:
    """Keeps back bytes begin..end of every blob until it is opened."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._shut: tuple[int, int] | None = None
        self.waiting = 0

    def close(self, begin: int, end: int) -> None:
        with self._changed:
            self._shut = begin, end

    def open(self) -> None:
        with self._changed:
            self._shut = None
            self._changed.notify_all()

    def pass_to(self, at: int, end: int) -> int:
        """How far a body that stands `at` may go on; waits where that is nowhere."""
        with self._changed:
            self.waiting += 1
            self._changed.notify_all()
            self._changed.wait_for(lambda: not (self._shut and self._shut[0] <= at < self._shut[1]))
            self.waiting -= 1
            shut = self._shut
        return min(end, shut[0]) if shut and at < shut[0] else end


class RoughOrigin:
    def __init__(
        self,
        rate: float | None = None,
        latency: float = 0,
        redirects: bool | Callable[[str], bool] = False,
    ) -> None:
        self.rate = rate  # bytes per second of each connection
        self.latency = latency  # seconds before each answer, and for setting up a connection
        # Of blobs, to storage; a function says it for each of the registry's hosts.
        self.redirects = redirects
        self.ranges = True
        self.bend: Bend | None = None
        self.gate = Gate()
        self.asked: list[Asked] = []
        self.connections = 0
        self._blobs: dict[str, Content] = {}
        self._manifests: dict[tuple[str, str], bytes] = {}
        self._links: dict[str, str] = {}  # signature -> digest
        self._used_links: set[str] = set()
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._silent = threading.Event()
        self._fillers: list[socket.socket] = []
        self._closed = False
        self.port = 0
        self._listener: socket.socket | None = None
        self.come_back()

    # ---- what it has ---------------------------------------------------------------------------

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def add_blob(self, content: bytes | Path, digest: str = "") -> str:
        view: Content
        if isinstance(content, Path):
            with open(content, "rb") as file:
                view = memoryview(mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ))
        else:
            view = content
        digest = digest or "sha256:" + hashlib.sha256(view).hexdigest()
        self._blobs[digest] = view
        return digest

    def add(self, image: Image) -> Image:
        self._blobs.update(image.blobs)
        self._manifests[image.repository, image.digest] = image.manifest
        self._manifests[image.repository, "1"] = image.manifest
        return image

    def remove_blob(self, digest: str) -> None:
        self._blobs.pop(digest, None)

    def content(self, digest: str) -> Content:
        return self._blobs[digest]

    def expire_links(self) -> None:
        """No link that has been of use is of any from now on."""
        with self._lock:
            for signature in self._used_links:
                self._links.pop(signature, None)
            self._used_links.clear()

    # ---- what it has seen ----------------------------------------------------------------------

    def transfers(self, digest: str = "") -> list[Asked]:
        with self._lock:
            return [a for a in self.asked if a.is_transfer() and digest in ("", a.digest)]

    def sent(self, digest: str = "") -> int:
        """Bytes of blobs that have left."""
        return sum(a.sent for a in self.transfers(digest))

    def wait_for(self, condition: Callable[[], bool], seconds: float = 30) -> None:
        wait_for(condition, seconds, "the origin")

    # ---- its life ------------------------------------------------------------------------------

    def refuse(self) -> None:
        """As a machine whose registry has ended: connections end, new ones are refused."""
        self._stop_listening()
        self._end_connections()

    def keep_silent(self) -> None:
        """As a machine that has gone: who is connected hears nothing more, and nobody new gets
        through, because a listening socket that accepts nothing has its queue full."""
        self._silent.set()
        self._stop_listening()
        self._listen(0)
        for _ in range(3):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", self.port))
            self._fillers.append(filler)

    def come_back(self) -> None:
        for filler in self._fillers:
            filler.close()
        self._fillers.clear()
        if self._silent.is_set():
            self._stop_listening()
            self._end_connections()
            self._silent.clear()
        if not self._listener:
            listener = self._listen(1024)
            threading.Thread(target=self._accept, args=(listener,), daemon=True).start()

    def close(self) -> None:
        self._closed = True
        self.gate.open()
        for filler in self._fillers:
            filler.close()
        self._stop_listening()
        self._silent.clear()
        self._end_connections()

    def __enter__(self) -> RoughOrigin:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _listen(self, backlog: int) -> socket.socket:
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Small, so that a rate is one and what counts as sent is on its way.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 256 * 1024)
        listener.bind(("127.0.0.1", self.port))
        listener.listen(backlog)
        self.port = listener.getsockname()[1]
        self._listener = listener
        return listener

    def _stop_listening(self) -> None:
        listener, self._listener = self._listener, None
        if listener:
            try:
                listener.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            listener.close()

    def _end_connections(self) -> None:
        with self._lock:
            for connection in self._open:
                _shut_down(connection)

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    # ---- a connection --------------------------------------------------------------------------

    def _serve(self, connection: socket.socket) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        handle = connection.dup()  # because a reset takes the first one away
        with self._lock:
            self._open.add(handle)
            self.connections += 1
            number = self.connections
        pace = _Pace(self.rate)
        if self.latency:
            time.sleep(self.latency)  # a handshake is a way there and back, too
        received = b""
        try:
            while not self._closed:
                while b"\r\n\r\n" not in received:
                    more = connection.recv(65536)
                    if not more:
                        return
                    received += more
                    if received[0] == _TLS:  # Clients try it first, and wait for a word.
                        connection.sendall(b"HTTP/1.0 400 Bad Request\r\n\r\n")
                        return
                head, _, received = received.partition(b"\r\n\r\n")
                asked = self._note(head.decode("latin-1"), number)
                if self.latency:
                    time.sleep(self.latency)
                if self._silent.is_set():
                    self._silence()
                    return
                answer = self._answer(asked)
                if self.bend:
                    self.bend(asked, answer)
                asked.status = answer.status
                if not self._send(connection, asked, answer, pace):
                    return
        except OSError:
            pass
        finally:
            with self._lock:
                self._open.discard(handle)
            handle.close()
            _close(connection)

    def _silence(self) -> None:
        while self._silent.is_set() and not self._closed:
            time.sleep(0.05)

    def _note(self, head: str, connection: int) -> Asked:
        request, *lines = head.split("\r\n")
        method, target, _ = request.split(" ")
        headers = {n.lower(): v.strip() for n, _, v in (line.partition(":") for line in lines)}
        host = headers.get("host", "").partition(":")[0]
        path = target.partition("?")[0]
        found = re.search(r"sha256:[0-9a-f]{64}\Z", path)
        digest = found[0] if found and "/manifests/" not in path else ""
        with self._lock:
            asked = Asked(
                number=len(self.asked), connection=connection, method=method, host=host,
                path=target, headers=headers, time=time.monotonic(), digest=digest,
                storage=host == "localhost" or host.startswith("data."),
            )  # fmt: skip
            self.asked.append(asked)
        return asked

    def _answer(self, asked: Asked) -> Answer:
        path, _, query = asked.path.partition("?")
        if path == "/v2/":
            return Answer(200, {"Content-Type": "application/json"}, [b"{}"])
        if asked.storage:
            signature = query.removeprefix("sig=")
            with self._lock:
                if self._links.get(signature) != asked.digest:
                    return error(403, "DENIED", "Signature not valid in the specified time frame.")
                self._used_links.add(signature)
            return self._blob(asked)
        if "/manifests/" in path:
            repository, _, reference = path.removeprefix("/v2/").rpartition("/manifests/")
            manifest = self._manifests.get((repository, reference))
            if manifest is None:
                return error(404, "MANIFEST_UNKNOWN", "manifest unknown")
            digest = "sha256:" + hashlib.sha256(manifest).hexdigest()
            return Answer(
                200,
                {"Content-Type": _MANIFEST, "Docker-Content-Digest": digest},
                [manifest],
                content=manifest,
            )
        if asked.digest not in self._blobs:
            return error(404, "BLOB_UNKNOWN", "blob unknown to registry")
        redirects = self.redirects(asked.host) if callable(self.redirects) else self.redirects
        if redirects and asked.method == "GET":
            with self._lock:
                signature = f"s{len(self.asked)}.{asked.number}"
                self._links[signature] = asked.digest
            storage = f"data.{asked.host}" if asked.host.endswith(".localhost") else "localhost"
            link = f"http://{storage}:{self.port}/data/{asked.digest}?sig={signature}"
            return Answer(307, {"Location": link, "Docker-Content-Digest": asked.digest})
        return self._blob(asked)

    def _blob(self, asked: Asked) -> Answer:
        found = self._blobs.get(asked.digest)
        if found is None:
            return error(404, "BLOB_UNKNOWN", "blob unknown to registry")
        content = memoryview(found)
        size = len(content)
        headers: dict[str, str | list[str]] = {
            "Content-Type": "application/octet-stream",
            "Docker-Content-Digest": asked.digest,
            "ETag": f'"{asked.digest[7:23]}"',
            "Last-Modified": "Sat, 01 Nov 2025 00:00:00 GMT",
        }
        if not self.ranges:
            return Answer(200, headers, [content], content=content)
        headers["Accept-Ranges"] = "bytes"
        wanted = _RANGE.match(asked.range)
        condition = asked.headers.get("if-range", headers["ETag"])
        expected = asked.headers.get("if-match", headers["ETag"])
        if expected not in ("*", headers["ETag"]):
            return error(412, "UNSUPPORTED", "The condition is not met.")
        if not wanted or condition != headers["ETag"]:
            return Answer(200, headers, [content], content=content)
        if wanted[3]:
            begin, end = max(0, size - int(wanted[3])), size
        else:
            begin, end = int(wanted[1]), min(int(wanted[2]) + 1 if wanted[2] else size, size)
        if begin >= size:
            return Answer(416, {**headers, "Content-Range": f"bytes */{size}"}, content=content)
        headers["Content-Range"] = f"bytes {begin}-{end - 1}/{size}"
        return Answer(206, headers, [content[begin:end]], content=content, begin=begin)

    # ---- sending -------------------------------------------------------------------------------

    def _send(
        self, connection: socket.socket, asked: Asked, answer: Answer, pace: _Pace
    ) -> bool:
        """False when the connection has no future."""
        if answer.raw is not None:
            connection.sendall(answer.raw)
            return self._end(connection, answer.how)
        if answer.cut == -1:
            return self._end(connection, answer.how)
        head = _head(answer)
        before = _acked(connection) if asked.digest else 0
        connection.sendall(head)
        asked.done = True
        if asked.method == "HEAD":
            return True
        asked.done = False
        try:
            whole = self._send_body(connection, asked, answer, pace)
        except OSError:
            # What the peer has not taken has not left.
            asked.sent = max(0, min(asked.sent, _acked(connection) - before - len(head)))
            raise
        asked.done = True
        if not whole:
            # The cut is where it was asked for, not where the kernel happened to be.
            wait_for_peer(connection)
            return self._end(connection, answer.how)
        return True

    def _send_body(
        self, connection: socket.socket, asked: Asked, answer: Answer, pace: _Pace
    ) -> bool:
        at = 0
        for part in answer.body:
            view = memoryview(part)
            while view:
                until = len(view)
                if asked.digest:
                    position = answer.begin + at
                    until = self.gate.pass_to(position, position + until) - position
                    if self._silent.is_set():
                        self._silence()
                        raise OSError("silent")
                until = min(until, pace.piece)
                if answer.cut is not None:
                    if at >= answer.cut:
                        return self._after_cut(connection, asked, answer, view)
                    until = min(until, answer.cut - at)
                pace.wait(until)
                piece = view[:until]
                if answer.chunked:
                    connection.sendall(b"%x\r\n%b\r\n" % (until, bytes(piece)))
                else:
                    connection.sendall(piece)
                asked.sent += until
                at += until
                view = view[until:]
        if answer.cut is not None and at >= answer.cut:
            return False
        if answer.chunked:
            connection.sendall(answer.last_chunk)
        return "Content-Length" not in answer.headers or answer.chunked

    def _after_cut(
        self, connection: socket.socket, asked: Asked, answer: Answer, rest: memoryview
    ) -> bool:
        if not answer.drip:
            return False
        for at in range(len(rest)):
            time.sleep(answer.drip)
            connection.sendall(rest[at : at + 1])
            asked.sent += 1
        return True

    def _end(self, connection: socket.socket, how: str) -> bool:
        if how == "silence":
            connection.settimeout(60)
            while connection.recv(65536):  # until the peer has had enough
                pass
        elif how == "rst":
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            with self._lock:  # The other descriptor would keep the connection.
                for handle in [h for h in self._open if _same(h, connection)]:
                    self._open.discard(handle)
                    handle.close()
            connection.close()
        return False


class _Pace:
    """Of one connection, whatever it is asked for."""

    def __init__(self, rate: float | None) -> None:
        self._rate = rate
        self._free = time.monotonic()
        # Some milliseconds' worth, so that the waiting is finer than what is measured.
        self.piece = max(16384, min(_PIECE, int(rate / 400))) if rate else _PIECE

    def wait(self, size: int) -> None:
        if not self._rate:
            return
        now = time.monotonic()
        self._free = max(self._free, now - _BURST_SECONDS) + size / self._rate
        if self._free > now:
            time.sleep(self._free - now)


def error(status: int, code: str, message: str) -> Answer:
    body = json.dumps({"errors": [{"code": code, "message": message}]}).encode()
    headers: dict[str, str | list[str]] = {"Content-Type": "application/json"}
    return Answer(status, headers, [body])


def _head(answer: Answer) -> bytes:
    lines = [f"HTTP/1.1 {answer.status} Status"]
    for name, value in answer.headers.items():
        lines += [f"{name}: {v}" for v in ([value] if isinstance(value, str) else value)]
    if answer.chunked:
        lines.append("Transfer-Encoding: chunked")
    elif "Content-Length" not in answer.headers:
        lines.append(f"Content-Length: {sum(map(len, answer.body))}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def _acked(connection: socket.socket) -> int:
    info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
    return struct.unpack_from("Q", info, _TCP_INFO_BYTES_ACKED)[0]


def wait_for_peer(connection: socket.socket, seconds: float = 2) -> None:
    """Until it has taken all that was sent, or is not taking any more."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
        state, unacked = info[0], struct.unpack_from("I", info, 24)[0]
        unsent = struct.unpack_from("I", info, 144)[0]
        if state != 1 or (unacked == 0 and unsent == 0):
            return
        time.sleep(0.0005)


def wait_for(condition: Callable[[], bool], seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} did not come to what was waited for in {seconds} s")
        time.sleep(0.005)


def _same(one: socket.socket, other: socket.socket) -> bool:
    try:
        return one.getpeername() == other.getpeername()
    except OSError:
        return False


def _shut_down(connection: socket.socket) -> None:
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass  # It has ended by itself.


def _close(connection: socket.socket) -> None:
    if connection.fileno() < 0:
        return
    _shut_down(connection)
    connection.close()


def joined(parts: Sequence[Content]) -> bytes:
    return b"".join(bytes(part) for part in parts)
