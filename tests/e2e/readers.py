"""Other HTTP parsers, each asked what it makes of the bytes of a connection.

nginx's, llhttp (in Node.js) and Go's (in docker-registry) as whole servers over TCP; http-parser
(as Python's httptools) and h11 as libraries. What each gives is the list of messages that it has
taken for whole and right, in their order.
"""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import h11
import httptools

from process import Process

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "images"))

from registry import BINARY, free_port, wait_for_port  # noqa: E402

NGINX = "/usr/sbin/nginx"
NODE = "/usr/bin/node"
_MANY = 1 << 20


@dataclass(frozen=True)
class Reading:
    """One message, as somebody has read it."""

    method: bytes
    target: bytes
    host: bytes | None  # None: it does not tell
    body_bytes: int | None  # likewise


class Reader(Protocol):
    name: str

    def read(self, sent: bytes) -> list[Reading]: ...

    def close(self) -> None: ...


def converse(port: int, sent: bytes) -> bytes:
    """Sends it, ends its side, and gives all that comes until the peer ends the other."""
    received = bytearray()
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        try:
            connection.sendall(sent)
            connection.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # It has seen enough of it.
        while True:
            try:
                piece = connection.recv(_MANY)
            except ConnectionResetError:
                return bytes(received)
            if not piece:
                return bytes(received)
            received += piece


class Nginx:
    """Says in fields of its answer what it has read; of the body nothing."""

    name = "nginx"
    _READ = re.compile(
        rb"HTTP/1\.1 204 [^\r]*\r\n(?:[^\r]+\r\n)*?"
        rb"X-Method: ([^\r]*)\r\nX-Target: ([^\r]*)\r\nX-Host: ([^\r]*)\r\n"
    )

    def __init__(self, directory: Path) -> None:
        directory.mkdir()
        self._port = free_port()
        temporary = "".join(
            f"  {kind}_temp_path {directory / kind};\n"
            for kind in ("client_body", "fastcgi", "uwsgi", "scgi", "proxy")
        )
        config = directory / "nginx.conf"
        config.write_text(
            f"daemon off;\nmaster_process off;\npid {directory / 'nginx.pid'};\n"
            "error_log stderr crit;\nevents { worker_connections 64; }\nhttp {\n  access_log off;\n"
            "  lingering_close off;\n  client_header_buffer_size 64k;\n"
            f"  large_client_header_buffers 4 64k;\n{temporary}"
            f"  server {{\n    listen 127.0.0.1:{self._port};\n    location / {{\n"
            '      add_header X-Method "$request_method" always;\n'
            '      add_header X-Target "$request_uri" always;\n'
            '      add_header X-Host "$http_host" always;\n'
            "      return 204;\n    }\n  }\n}\n"
        )
        self._process = Process(
            "nginx", [NGINX, "-p", directory, "-e", "stderr", "-c", config], directory / "log"
        )
        wait_for_port(self._port, self._process.exit_code)

    def read(self, sent: bytes) -> list[Reading]:
        found = self._READ.findall(converse(self._port, sent))
        return [Reading(method, target, host, None) for method, target, host in found]

    def close(self) -> None:
        self._process.stop()


class Node:
    """llhttp, as Node.js's server has it."""

    name = "llhttp"
    # What was read is told when the connection has ended, because with what it refuses later the
    # server throws away the answers that are under way.
    _SERVER = """
const server = require('http').createServer((request, response) => {
  const hosts = request.rawHeaders.filter(
      (_, i, all) => i % 2 == 1 && all[i - 1].toLowerCase() == 'host');
  const read = [request.method, request.url, hosts.join(), 0];
  request.socket.read_here.push(read);
  request.on('data', (piece) => { read[3] += piece.length; });
  request.on('end', () => response.writeHead(204).end());
});
server.on('connection', (socket) => {
  socket.read_here = [];
  socket.on('close', () => console.log(JSON.stringify(socket.read_here)));
});
server.httpAllowHalfOpen = true;
server.maxHeadersCount = 0;
server.keepAliveTimeout = 200;
server.listen(0, '127.0.0.1', () => console.log(server.address().port));
"""

    def __init__(self, directory: Path) -> None:
        directory.mkdir()
        program = directory / "server.js"
        program.write_text(self._SERVER)
        self._process = Process(
            "node", [NODE, "--max-http-header-size=131072", program], directory / "log",
            stdout=subprocess.PIPE,
        )  # fmt: skip
        self._port = int(self._process.stdout.readline())

    def read(self, sent: bytes) -> list[Reading]:
        converse(self._port, sent)
        return [
            Reading(method.encode(), target.encode("latin-1"), host.encode("latin-1"), size)
            for method, target, host, size in json.loads(self._process.stdout.readline())
        ]

    def close(self) -> None:
        self._process.stop()


class Go:
    """net/http, as docker-registry has it: what it says is in its log. Its line about a request is
    written before the answer; the one with the Host not for every path."""

    name = "Go"
    _CONFIG = """version: 0.1
log:
  level: info
  formatter: json
storage:
  filesystem:
    rootdirectory: {root}
http:
  addr: 127.0.0.1:{port}
"""
    _LINE = re.compile(rb'^\S+ - \S+ \[[^]]*\] "(\S+) (\S+) HTTP/1\.[01]" ')

    def __init__(self, directory: Path) -> None:
        directory.mkdir()
        self._port = free_port()
        config = directory / "config.yml"
        config.write_text(self._CONFIG.format(root=directory / "root", port=self._port))
        self._process = Process("docker-registry", [BINARY, "serve", config], directory / "log")
        wait_for_port(self._port, self._process.exit_code)
        self._log = open(directory / "log", "rb")  # noqa: SIM115

    def read(self, sent: bytes) -> list[Reading]:
        self._log.read()
        converse(self._port, sent)
        hosts: dict[bytes, bytes] = {}
        found = []
        for line in self._log.read().splitlines():
            if line.startswith(b"{"):
                told = json.loads(line)
                if uri := told.get("http.request.uri"):
                    hosts[uri.encode()] = told["http.request.host"].encode()
            elif match := self._LINE.match(line):
                found.append((match[1], match[2]))
        return [Reading(method, target, hosts.get(target), None) for method, target in found]

    def close(self) -> None:
        self._log.close()
        self._process.stop()


class HttpParser:
    """http-parser, of which httptools is made."""

    name = "http-parser"

    def read(self, sent: bytes) -> list[Reading]:
        collected = _Collected()
        parser = httptools.HttpRequestParser(collected)
        collected.parser = parser
        try:
            parser.feed_data(sent)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            pass
        return collected.readings

    def close(self) -> None:
        pass


class _Collected:
    """What httptools calls."""

    def __init__(self) -> None:
        self.readings: list[Reading] = []
        self.parser: httptools.HttpRequestParser
        self.on_message_begin()

    def on_message_begin(self) -> None:
        self._target = b""
        self._hosts: list[bytes] = []
        self._size = 0

    def on_url(self, piece: bytes) -> None:
        self._target += piece

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"host":
            self._hosts.append(value or b"")

    def on_body(self, piece: bytes) -> None:
        self._size += len(piece)

    def on_message_complete(self) -> None:
        method = self.parser.get_method()
        self.readings.append(Reading(method, self._target, b",".join(self._hosts), self._size))


class H11:
    """h11, in strict Python."""

    name = "h11"

    def read(self, sent: bytes) -> list[Reading]:
        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=131072)
        connection.receive_data(sent)
        readings = []
        try:
            while True:
                request, size = connection.next_event(), 0
                if not isinstance(request, h11.Request):
                    return readings
                while isinstance(event := connection.next_event(), h11.Data):
                    size += len(event.data)
                if not isinstance(event, h11.EndOfMessage):
                    return readings
                host = b",".join(value for name, value in request.headers if name == b"host")
                readings.append(Reading(request.method, request.target, host, size))
                # With a 2xx it would take a CONNECT for agreed upon.
                headers = [("Content-Length", "0")]
                connection.send(h11.Response(status_code=404, headers=headers))
                connection.send(h11.EndOfMessage())
                if connection.our_state is not h11.DONE:
                    return readings
                connection.start_next_cycle()
        except h11.RemoteProtocolError:
            return readings

    def close(self) -> None:
        pass


def all_readers(directory: Path) -> list[Reader]:
    directory.mkdir()
    return [Nginx(directory / "nginx"), Node(directory / "node"), Go(directory / "registry"),
            HttpParser(), H11()]  # fmt: skip
