#!/usr/bin/python3
"""Asks as the user that runs it: a list of questions as JSON on stdin, the answers as JSON on stdout.

A question is [door, method, target, body], a door "127.0.0.1:5050", "[::1]:5050" or the path of a Unix
socket; the questions of one door go over one connection, as long as that is kept. An answer is
[status, challenge, body]; the status is 0 where the connection came to nothing. It needs nothing of
this tree, as the user may not be able to read it: its text is given to the interpreter.
"""

from __future__ import annotations

import http.client
import json
import socket
import sys
from typing import Any

_TIMEOUT = 30


def _connect(door: str) -> http.client.HTTPConnection:
    if not door.startswith("/"):
        return http.client.HTTPConnection(door, timeout=_TIMEOUT)
    connection = http.client.HTTPConnection("localhost", timeout=_TIMEOUT)
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.settimeout(_TIMEOUT)
    connection.sock.connect(door)
    return connection


def _ask(connections: dict[str, http.client.HTTPConnection], question: list[str]) -> list[Any]:
    door, method, target, body = question
    try:
        if door not in connections:
            connections[door] = _connect(door)
        connections[door].request(method, target, body or None)
        answer = connections[door].getresponse()
        content = answer.read()
    except (OSError, http.client.HTTPException) as error:
        connections.pop(door, None)
        return [0, None, f"{type(error).__name__}: {error}"]
    if answer.will_close:
        connections.pop(door).close()
    return [answer.status, answer.getheader("WWW-Authenticate"), content.decode("latin-1")]


def main() -> None:
    connections: dict[str, http.client.HTTPConnection] = {}
    json.dump([_ask(connections, question) for question in json.load(sys.stdin)], sys.stdout)


if __name__ == "__main__":
    main()
