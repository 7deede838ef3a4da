"""Reading a blob through the daemon and comparing it with the origin's bytes as it comes.

Comparing costs less than hashing, and 32 clients of 256 MiB are eight gigabytes.
"""

from __future__ import annotations

import http.client
import mmap
import threading
from collections.abc import Callable
from pathlib import Path

PIECE = 256 * 1024


class Reading(threading.Thread):
    """One client in its own thread. `steps` are called at the points their names say.

    before_request      connected, nothing sent
    after_headers       the status line and headers are here
    at                  (bytes, function): called once so many bytes of the body have come
    """

    def __init__(
        self,
        address: str,
        target: str,
        truth: Path,
        before_request: Callable[[], object] | None = None,
        after_headers: Callable[[], object] | None = None,
        at: tuple[int, Callable[[], object]] | None = None,
    ) -> None:
        super().__init__(daemon=True)
        self._address = address
        self._target = target
        self._truth = truth
        self._before_request = before_request
        self._after_headers = after_headers
        self._at = at
        self.status = 0
        self.cache_status = ""
        self.received = 0
        self.problem = ""

    def run(self) -> None:
        try:
            self._read()
        except Exception as why:  # A thread's exception would be lost; the test asks for it.
            self.problem = self.problem or f"{type(why).__name__}: {why}"

    def _read(self) -> None:
        host, _, port = self._address.rpartition(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=120)
        connection.connect()
        if self._before_request:
            self._before_request()
        connection.request("GET", self._target)
        response = connection.getresponse()
        self.status = response.status
        self.cache_status = response.getheader("Cache-Status", "")
        if self._after_headers:
            self._after_headers()
        with open(self._truth, "rb") as file:
            expected = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
        while piece := response.read(PIECE):
            if expected[self.received : self.received + len(piece)] != piece:
                self.problem = f"wrong bytes after {self.received}"
                return
            self.received += len(piece)
            if self._at and self.received >= self._at[0]:
                self._at[1]()
                self._at = None
        if self.received != len(expected):
            self.problem = f"ended after {self.received} of {len(expected)} bytes"
        connection.close()


def problems(readings: list[Reading]) -> list[str]:
    """Waits for all of them; what went wrong, with nothing for those that went right."""
    for reading in readings:
        reading.join()
    return [r.problem or f"status {r.status}" for r in readings if r.problem or r.status != 200]
