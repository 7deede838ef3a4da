"""A port of 127.0.0.1 in front of a Unix socket: what `ssh -L 8080:/run/staithe/control.sock` is.

Like ssh, it accepts while nobody listens behind it, and then closes at once.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from pathlib import Path


class Bridge:
    """`changed` may change what comes from behind, piece by piece."""

    def __init__(self, target: Path, changed: Callable[[bytes], bytes] = bytes) -> None:
        self._target = str(target)
        self._changed = changed
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/"
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            behind = socket.socket(socket.AF_UNIX)
            try:
                behind.connect(self._target)
            except OSError:
                client.close()
                behind.close()
                continue
            threading.Thread(target=self._carry, args=(client, behind), daemon=True).start()

    def _carry(self, client: socket.socket, behind: socket.socket) -> None:
        with client, behind:
            back = threading.Thread(target=_copy, args=(behind, client, self._changed), daemon=True)
            back.start()
            _copy(client, behind, bytes)
            back.join()

    def close(self) -> None:
        # Wakes the thread that waits for a connection.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()


def _copy(source: socket.socket, sink: socket.socket, changed: Callable[[bytes], bytes]) -> None:
    """Until one of them ends, which ends both."""
    with contextlib.suppress(OSError):
        while piece := source.recv(65536):
            sink.sendall(changed(piece))
    for end in (source, sink):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
