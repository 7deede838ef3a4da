"""HTTP/1.1 on a plain or TLS port, one thread a connection, able to break any answer on request.

The standard library's server hides the socket; the faults that matter here (a FIN after so many
bytes, a RST, a pause in the middle) are done on the socket, so this reads and writes HTTP itself.
"""

from __future__ import annotations

import base64
import json
import mmap
import os
import select
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from urllib.parse import parse_qsl, unquote

from .faults import Barriers, Faults, Rule
from .recorder import Entry, Recorder
from .vault import fingerprint

MAX_HEAD = 64 * 1024
MAX_BODY = 1024 * 1024
CHUNK = 1024 * 1024
IDLE_SECONDS = 120.0

_connection_numbers = iter(range(1, 1 << 62))


class Malformed(Exception):
    """The request breaks HTTP; the connection ends with a 400."""


@dataclass
class Request:
    method: str
    target: str
    path: str
    query: list[tuple[str, str]]
    headers: list[tuple[str, str]]
    body: bytes
    log: Entry

    def header(self, name: str) -> str | None:
        """The value of a header that may come once; several are joined as HTTP allows."""
        found = [value for key, value in self.headers if key.lower() == name.lower()]
        return ", ".join(found) if found else None

    def host(self) -> str:
        return self.header("host") or ""

    def form(self) -> list[tuple[str, str]] | None:
        kind = (self.header("content-type") or "").split(";")[0].strip().lower()
        if kind != "application/x-www-form-urlencoded":
            return None
        return parse_qsl(self.body.decode("latin-1"), keep_blank_values=True)


@dataclass
class FileSlice:
    """Part of a file as a body; it is mapped, so that its size costs no memory."""

    path: Path
    offset: int
    length: int


@dataclass
class Response:
    status: int
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytes | FileSlice = b""
    # Content-Length of an answer to HEAD, whose body is not at hand.
    head_length: int | None = None

    def length(self) -> int:
        if self.head_length is not None:
            return self.head_length
        return self.body.length if isinstance(self.body, FileSlice) else len(self.body)


def json_response(status: int, value: object, headers: list[tuple[str, str]] | None = None):
    body = json.dumps(value).encode()
    kind = ("Content-Type", "application/json; charset=utf-8")
    return Response(status, [kind, *(headers or [])], body)


Handler = Callable[[Request], Response]


class Port:
    """One role's listening port."""

    def __init__(
        self,
        role: str,
        handler: Handler,
        recorder: Recorder | None,
        faults: Faults,
        barriers: Barriers,
        context: ssl.SSLContext | None = None,
        number: int = 0,
    ) -> None:
        self.role = role
        self._handler = handler
        self._recorder = recorder
        self._faults = faults
        self._barriers = barriers
        self._context = context
        self._listener: socket.socket | None = None
        self._connections: set[socket.socket] = set()
        self._lock = threading.Lock()
        self.number = number
        self.open()

    def open(self) -> None:
        """Listens, on the same number as before if it was closed in between."""
        if self._listener:
            return
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", self.number))
        listener.listen(512)
        self.number = listener.getsockname()[1]
        self._listener = listener
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()

    def close(self) -> None:
        """Ends all connections and refuses new ones."""
        if not self._listener:
            return
        listener, self._listener = self._listener, None
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        with self._lock:
            for connection in self._connections:
                # Only shut down: its thread wakes, finds the end, and closes it.
                _shut_down(connection)

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, raw: socket.socket) -> None:
        number = next(_connection_numbers)
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        raw.settimeout(IDLE_SECONDS)
        connection: socket.socket = raw
        # A second descriptor, because TLS and a reset take the first one away from here.
        handle = raw.dup()
        with self._lock:
            self._connections.add(handle)
        try:
            if self._context:
                connection = self._context.wrap_socket(raw, server_side=True)
            reader = _Reader(connection)
            while self._exchange(connection, reader, number):
                pass
        except (OSError, _Ended):
            pass
        finally:
            with self._lock:
                self._connections.discard(handle)
            handle.close()
            _close(connection)

    def _exchange(self, connection: socket.socket, reader: _Reader, number: int) -> bool:
        """One request and its answer; false when the connection has no future."""
        try:
            head = reader.head()
            if head is None:
                return False
            method, target, version, headers = _parse_head(head)
            body = self._body(connection, reader, headers)
        except Malformed as why:
            _send_head(connection, Response(400, [("Connection", "close")], str(why).encode()))
            connection.sendall(str(why).encode())
            return False

        path, _, query_text = target.partition("?")
        query = parse_qsl(query_text, keep_blank_values=True)
        lower = {key.lower(): value for key, value in headers}
        entry = self._begin(method, path, query, lower, number)
        request = Request(method, target, unquote(path), query, headers, body, entry)
        _note_secrets(request)
        keep = version == "HTTP/1.1" and lower.get("connection", "").lower() != "close"
        try:
            rule = None
            if self._recorder:
                host = lower.get("host", "")
                rule = self._faults.strike(self.role, method, host, path)
            answer = _Answer(self._barriers, rule, request)
            return answer.send(connection, self._handler) and keep
        finally:
            if self._recorder:
                self._recorder.end(entry)

    def _begin(self, method, path, query, headers, number) -> Entry:
        scheme = headers.get("authorization", "").split(" ")[0].lower()
        fields = {
            "role": self.role,
            "connection": number,
            "tls": self._context is not None,
            "method": method,
            "path": path,
            "query_keys": [key for key, _ in query],
            "host": headers.get("host", ""),
            "authorization": scheme if scheme in ("basic", "bearer") else
            "other" if "authorization" in headers else "none",
            "range": headers.get("range", ""),
        }  # fmt: skip
        if self._recorder:
            return self._recorder.begin(**fields)
        return Entry(seq=0, time=time.time(), **fields)

    def _body(self, connection, reader: _Reader, headers: list[tuple[str, str]]) -> bytes:
        lengths = {value for key, value in headers if key.lower() == "content-length"}
        if any(key.lower() == "transfer-encoding" for key, _ in headers):
            raise Malformed("this server takes bodies by Content-Length only")
        if not lengths:
            return b""
        length = lengths.pop()
        if lengths or not length.isdecimal() or int(length) > MAX_BODY:
            raise Malformed("bad Content-Length")
        if any(k.lower() == "expect" and v.lower() == "100-continue" for k, v in headers):
            connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        return reader.exactly(int(length))


# Where a request may carry a secret; X-IDENTITY-HEADER and `secret` are App Service's.
_SECRET_HEADERS = ("authorization", "x-identity-header", "secret", "cookie")
_SECRET_FIELDS = (
    "client_secret", "client_assertion", "access_token", "refresh_token", "password",
)  # fmt: skip


def _note_secrets(request: Request) -> None:
    """Hashes of what came, so that a test can tell what went where without the log being one."""
    request.log.form_keys = [name for name, _ in request.form() or []]
    request.log.secrets = {name: fingerprint(text) for name, text in _secrets(request).items()}


def _secrets(request: Request) -> dict[str, str]:
    found = {name: request.header(name) for name in _SECRET_HEADERS}
    found |= {name: value for name, value in request.form() or [] if name in _SECRET_FIELDS}
    return {name: value for name, value in found.items() if value}


def _echo(request: Request) -> bytes:
    """Everything that the request proves itself by, as it came and as it reads."""
    quoted = list(_secrets(request).values()) + [value for _, value in request.query]
    scheme, _, value = (request.header("authorization") or "").partition(" ")
    if scheme.lower() == "basic":
        quoted.append(base64.b64decode(value + "==").decode(errors="replace"))
    text = f"refused: {request.target} {' '.join(quoted)}"
    error = {"code": "UNAUTHORIZED", "message": text, "detail": text}
    return json.dumps({"error": "e", "error_description": text, "errors": [error]}).encode()


class _Ended(Exception):
    """The peer, or a fault, has ended the connection."""


class _Reader:
    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._buffer = b""

    def head(self) -> bytes | None:
        """The next request's head without its last empty line; None at an orderly end."""
        while b"\r\n\r\n" not in self._buffer:
            if len(self._buffer) > MAX_HEAD:
                raise Malformed("request head too large")
            more = self._connection.recv(16384)
            if not more:
                return None
            self._buffer += more
        head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        return head

    def exactly(self, length: int) -> bytes:
        while len(self._buffer) < length:
            more = self._connection.recv(65536)
            if not more:
                raise _Ended
            self._buffer += more
        body, self._buffer = self._buffer[:length], self._buffer[length:]
        return body


def _parse_head(head: bytes) -> tuple[str, str, str, list[tuple[str, str]]]:
    lines = head.decode("latin-1").split("\r\n")
    words = lines[0].split(" ")
    if len(words) != 3 or words[2] not in ("HTTP/1.1", "HTTP/1.0") or words[1][:1] != "/":
        raise Malformed("bad request line")
    headers = []
    for line in lines[1:]:
        name, colon, value = line.partition(":")
        if not colon or not name or name != name.strip():
            raise Malformed("bad header line")
        headers.append((name, value.strip(" \t")))
    if sum(1 for name, _ in headers if name.lower() == "host") != 1:
        raise Malformed("exactly one Host is required")
    return words[0], words[1], words[2], headers


class _Answer:
    """Sends one response, bent by at most one fault rule."""

    def __init__(self, barriers: Barriers, rule: Rule | None, request: Request) -> None:
        self._barriers = barriers
        self._action = rule.action if rule else {}
        self._request = request
        if rule:
            request.log.fault = rule.name

    def send(self, connection: socket.socket, handler: Handler) -> bool:
        action, log = self._action, self._request.log
        if "delay" in action:
            time.sleep(action["delay"])
        if action.get("hang"):
            log.aborted = True
            self._barriers.hold("(hang)")
            raise _Ended
        if "hold" in action and "after" not in action and "at" not in action:
            self._barriers.hold(action["hold"])
        if action.get("close") == -1 or action.get("reset") == -1:
            self._break(connection)
        response = self._bend(self._replacement() or handler(self._request))
        log.status = response.status
        with_body = self._request.method != "HEAD" and response.status not in (204, 304)
        _send_head(connection, response)
        if with_body:
            try:
                self._send_body(connection, response)
            except OSError:
                log.aborted = True
                raise
        return True

    def _replacement(self) -> Response | None:
        action = self._action
        if "redirect" in action:
            return Response(307, [("Location", action["redirect"])])
        if "status" in action:
            headers = list(action.get("headers", {}).items())
            if action.get("echo"):
                return Response(action["status"], headers, _echo(self._request))
            return Response(action["status"], headers, action.get("body", "").encode())
        return None

    def _bend(self, response: Response) -> Response:
        action, body = self._action, response.body
        dropped = {name.lower() for name in action.get("drop_headers", [])}
        response.headers = [h for h in response.headers if h[0].lower() not in dropped]
        response.headers += list(action.get("add_headers", {}).items())
        if "shorten" in action:
            keep = max(0, response.length() - action["shorten"])
            if isinstance(body, FileSlice):
                response.body = FileSlice(body.path, body.offset, keep)
            else:
                response.body = body[:keep]
        if "lengthen" in action:
            whole = b"".join(_pieces(body)) + b"\0" * action["lengthen"]
            response.body = whole
        return response

    def _send_body(self, connection: socket.socket, response: Response) -> None:
        action, log, sent = self._action, self._request.log, 0
        end = action.get("close", action.get("reset"))
        stop = action.get("after")
        if "at" in action:
            first = dict(response.headers).get("Content-Range", "bytes 0-")[6:].split("-")[0]
            stop = action["at"] - int(first)
            # A connection whose whole answer has been read is asked again, and has to answer.
            stop = stop if 0 <= stop < response.length() else None
        started = time.monotonic()
        for piece in _pieces(response.body, CHUNK if "rate" not in action else 16384):
            piece = self._flip(piece, sent)
            while piece:
                part = piece
                for limit in (end, stop):
                    if limit is not None and sent <= limit < sent + len(part):
                        part = part[: limit - sent]
                connection.sendall(part)
                sent += len(part)
                log.bytes_sent = sent
                piece = piece[len(part) :]
                if stop is not None and sent >= stop:
                    stop = None
                    self._barriers.hold(action["hold"])
                if end is not None and sent >= end:
                    self._break(connection)
            if "rate" in action:
                time.sleep(max(0.0, started + sent / action["rate"] - time.monotonic()))

    def _flip(self, piece: memoryview, position: int) -> memoryview:
        at = self._action.get("flip", -1) - position
        if not 0 <= at < len(piece):
            return piece
        changed = bytearray(piece)
        changed[at] ^= 0xFF
        return memoryview(changed)

    def _break(self, connection: socket.socket) -> None:
        self._request.log.aborted = True
        if "reset" in self._action:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            # A TLS socket would say goodbye first; the reset has to come without a word.
            os.close(connection.detach())
        raise _Ended


def _pieces(body: bytes | FileSlice, size: int = CHUNK) -> Iterator[memoryview]:
    if isinstance(body, bytes):
        for start in range(0, len(body), size):
            yield memoryview(body)[start : start + size]
        return
    if body.length == 0:
        return
    with open(body.path, "rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
        mapped.madvise(mmap.MADV_SEQUENTIAL)
        view = memoryview(mapped)
        for start in range(body.offset, body.offset + body.length, size):
            yield view[start : min(start + size, body.offset + body.length)]


def _send_head(connection: socket.socket, response: Response) -> None:
    try:
        phrase = HTTPStatus(response.status).phrase
    except ValueError:
        phrase = "Status"
    lines = [f"HTTP/1.1 {response.status} {phrase}"]
    names = {name.lower() for name, _ in response.headers}
    lines += [f"{name}: {value}" for name, value in response.headers]
    if "content-length" not in names:
        lines.append(f"Content-Length: {response.length()}")
    if "date" not in names:
        lines.append(time.strftime("Date: %a, %d %b %Y %H:%M:%S GMT", time.gmtime()))
    connection.sendall(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))


def _shut_down(connection: socket.socket) -> None:
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass  # It has ended by itself.


def _close(connection: socket.socket) -> None:
    """An orderly end: TLS says goodbye, then FIN. What the peer still sends is read away,
    because unread bytes would turn the FIN into a RST."""
    try:
        if isinstance(connection, ssl.SSLSocket):
            connection.settimeout(0)
            try:
                connection.unwrap()
            except ssl.SSLError:
                pass
        connection.shutdown(socket.SHUT_WR)
        while select.select([connection], [], [], 1.0)[0]:
            if not connection.recv(65536):
                break
    except (OSError, ValueError):
        pass
    finally:
        connection.close()
