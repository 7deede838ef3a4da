"""Clients that pull without a break and take nothing that is not right, as a node under load does.

They do as Go's HTTP client does, which docker, containerd, podman and the kubelet have: a request
on a connection that has answered before, and that ends without a byte of the answer, is asked again
on a new one. Everything else that goes wrong is a pull that failed.
"""

from __future__ import annotations

import hashlib
import http.client
import itertools
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable

from origin import Image, Origin, make_image

_KIB, _MIB = 1024, 1024 * 1024
_PIECE = 256 * _KIB
# Longer than a drain: whoever connects meanwhile waits for the next daemon.
_PATIENCE = 60


class _Ended(Exception):
    """The connection ended before an answer began."""


class Pulls:
    """Threads of three kinds, until they are stopped: hits of small images, hits of a large blob,
    and images that nobody has pulled before."""

    def __init__(self, origin: Origin, registry: str, port: int, each: int = 3) -> None:
        self._origin = origin
        self._registry = registry
        self._port = port
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._seeds = itertools.count(1000)
        self.done: Counter[str] = Counter()
        self.failures: list[str] = []
        self.asked_again = 0
        self.longest = 0.0  # seconds of one pull
        self._small = [
            origin.add(make_image(f"small{i}", [4 * _KIB, 30 * _KIB], i)) for i in range(8)
        ]
        self._large = origin.add(make_image("large", [48 * _MIB], 1))
        kinds = {"small hits": self._small_hit, "large hits": self._large_hit, "cold": self._cold}
        self._threads = [
            threading.Thread(target=self._run, args=(name, pull), name=name)
            for name, pull in kinds.items()
            for _ in range(each)
        ]

    def __enter__(self) -> Pulls:
        for image in (*self._small, self._large):
            self._pull(image)
        self.done.clear()
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def wait_for(self, more: int, seconds: float = 60) -> None:
        """Until each kind of client has ended so many pulls more, or one has failed."""
        with self._lock:
            goals = {thread.name: self.done[thread.name] + more for thread in self._threads}
        deadline = time.monotonic() + seconds
        while not self.failures and any(self.done[name] < goal for name, goal in goals.items()):
            if time.monotonic() > deadline:
                raise TimeoutError(f"pulls come to no end: {self.done}, wanted {goals}")
            time.sleep(0.01)

    def summary(self) -> str:
        counts = ", ".join(f"{count} {name}" for name, count in sorted(self.done.items()))
        return (f"{counts}; {len(self.failures)} failed, {self.asked_again} requests asked again, "
                f"longest pull {self.longest:.2f} s")  # fmt: skip

    # ---- a client ------------------------------------------------------------------------------

    def _run(self, name: str, pull: Callable[[], None]) -> None:
        while not self._stop.is_set():
            begun = time.monotonic()
            try:
                pull()
            except Exception as error:  # whatever it is, a pull has failed
                with self._lock:
                    self.failures.append(f"{name}: {type(error).__name__}: {error}")
                return
            with self._lock:
                self.done[name] += 1
                self.longest = max(self.longest, time.monotonic() - begun)

    def _small_hit(self) -> None:
        with self._lock:
            image = self._small[next(self._seeds) % len(self._small)]
        self._pull(image)

    def _large_hit(self) -> None:
        self._pull(self._large)

    def _cold(self) -> None:
        with self._lock:
            seed = next(self._seeds)
        image = self._origin.add(make_image(f"cold{seed}", [8 * _KIB, _MIB], seed))
        self._pull(image)
        self._origin.remove(image)

    def _pull(self, image: Image) -> None:
        client = _Client(self._port, self._asked_again)
        try:
            path = f"/v2/{self._registry}/{image.repository}"
            client.get(f"{path}/manifests/1", image.digest)
            for digest in image.blobs:
                client.get(f"{path}/blobs/{digest}", digest)
        finally:
            client.close()

    def _asked_again(self) -> None:
        with self._lock:
            self.asked_again += 1


class _Client:
    def __init__(self, port: int, asked_again: Callable[[], None]) -> None:
        self._port = port
        self._asked_again = asked_again
        self._connection: http.client.HTTPConnection | None = None

    def close(self) -> None:
        if self._connection:
            self._connection.close()
            self._connection = None

    def get(self, path: str, digest: str) -> None:
        """The whole of it, and right."""
        used = self._connection is not None
        try:
            response = self._answer(path)
        except _Ended:
            if not used:
                raise
            self._asked_again()
            response = self._answer(path)
        if response.status != 200:
            raise AssertionError(f"{path}: {response.status} {response.read()[:500]!r}")
        sha = hashlib.sha256()
        while piece := response.read(_PIECE):
            sha.update(piece)
        if f"sha256:{sha.hexdigest()}" != digest:
            raise AssertionError(f"{path}: other bytes, or not all of them")
        if response.will_close:
            self.close()

    def _answer(self, path: str) -> http.client.HTTPResponse:
        if not self._connection:
            # Without a try: a connection that is refused is a failure.
            connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=_PATIENCE)
            connection.connect()
            connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._connection = connection
        try:
            self._connection.request("GET", path)
            return self._connection.getresponse()
        except (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError) as error:
            self.close()
            raise _Ended(f"{path}: {error or type(error).__name__}") from error
