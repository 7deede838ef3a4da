"""A daemon over a directory, in front of an origin in this process, that starts and stops fast.

For tests that need hundreds of starts. Clients come through a Unix socket, so no port has to be
free, and none stays busy after a kill.
"""

from __future__ import annotations

import http.client
import os
import re
import select
import signal
import socket
import sqlite3
import time
from pathlib import Path
from typing import Protocol

from disk_calls import DiskCalls
from origin import Image, digest_of
from process import Process, in_place_of_others
from staithed import Staithed, binary, toml

REGISTRY = "origin.test"
_NAMES = re.compile(
    r"lock|pins|index\.db(-wal|-shm|-journal|\.set-aside)?"
    r"|(blobs|manifests)(/sha(256|512)(/[0-9a-f]{2}(/[0-9a-f]{64,128})?)?)?"
    r"|partial(/[0-9a-f]{64,128}\..+)?|quarantine(/[0-9]{12}\.[0-9]{6}\.[0-9a-f]{64,128})?"
)


class Broken(Exception):
    """A transfer that did not end well; what had come of it may be anything, but not an answer."""


class Wrong(AssertionError):
    """A whole answer that is not the truth, or a state that must not be."""


class HasUrl(Protocol):
    """An origin of either kind, in this process or another."""

    @property
    def url(self) -> str: ...


class Node(Staithed):
    def __init__(
        self, directory: Path, origin: HasUrl, cache: Path | None = None, **settings: object
    ) -> None:
        self._origin = origin
        super().__init__(directory, {})
        self.cache = cache or self.cache
        self.registry_socket = directory / "registry.sock"
        self._notify = directory / "notify.sock"
        self.calls = DiskCalls(self.cache, directory / "calls")
        self.counted = False  # whether the next start is with the library
        # What the daemon is run by ("setpriv", "--reuid=1000"), and as which program.
        self.run_by: list[str | Path] = []
        self.program = binary("staithed")
        self.configured(
            {
                "listen": {"registry": [f"unix:{self.registry_socket}"], "drain_timeout": "1s"},
                "cache": {"directory": str(self.cache), "min_free": 0, **settings},
                # Exact counts of what upstream was asked need tags that are not asked for again.
                "freshness": {"tag_ttl": "1h"},
            }
        )

    def _default_config(self, azure: dict) -> dict:
        origin = {"name": REGISTRY, "upstream": [self._origin.url], "identity": "nobody"}
        return {
            "listen": {"control": str(self.socket)},
            "cache": {},
            "log": {"level": "debug", "format": "text"},
            "registry": [origin],
            "identity": {"nobody": {"kind": "anonymous"}},
        }

    # ---- its life ------------------------------------------------------------------------------

    def launch(self) -> None:
        """Starts it and does not wait."""
        self.config_file.write_text(toml(self.config))
        self._notify.unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._listener.bind(str(self._notify))
        self._notify.chmod(0o666)  # it may run as another user
        environment = {"NOTIFY_SOCKET": str(self._notify)}
        if self.counted:
            environment |= self.calls.environment
        command = [
            *in_place_of_others(self.in_place_of),
            *self.run_by,
            self.program,
            "--config",
            self.config_file,
        ]
        self._process = Process("staithed", command, self.log, environment | self.environment)

    @property
    def manager(self) -> socket.socket:
        """Where it sends what it tells the service manager, for those who do not wait until it is
        ready."""
        return self._listener

    def wait_until_ready(self, seconds: float = 30) -> bool:
        """False if it died instead."""
        death = os.pidfd_open(self.process.pid)
        try:
            deadline = time.monotonic() + seconds
            while time.monotonic() < deadline:
                ready, _, _ = select.select([self._listener, death], [], [], 1)
                if self._listener in ready:
                    if b"READY=1" in self._listener.recv(4096).split(b"\n"):
                        return True
                elif death in ready:
                    return False
        finally:
            os.close(death)
            self._listener.close()
        raise TimeoutError(f"staithed did not get ready:\n{self.process.tail(20)}")

    def start(self, timeout: float = 30) -> Node:
        self.launch()
        if not self.wait_until_ready(timeout):
            raise Wrong(f"it does not start: {self.process.exit_code()}\n{self.process.tail(20)}")
        return self

    def killed(self) -> bool:
        return self.process.exit_code() == -signal.SIGKILL

    def wait_for_death(self, seconds: float = 10) -> int:
        return self.process.wait(seconds)

    def stop_cleanly(self) -> None:
        code = self.stop()
        if code != 0:
            raise Wrong(f"it ended with {code}:\n{self.process.tail(20)}")

    # ---- as a client ---------------------------------------------------------------------------

    def client(self) -> Client:
        return Client(self.registry_socket)

    def pull(self, image: Image, order: list[str] | None = None) -> None:
        """Throws Broken if the daemon cut it off, Wrong if it gave a wrong answer."""
        with self.client() as client:
            client.manifest(image, "1")
            for digest in order or list(image.blobs):
                client.blob(image, digest)

    # ---- what must be so -----------------------------------------------------------------------

    def settle(self) -> dict:
        """The status once nothing is under way."""
        self.wait_until_stored()
        return self.status()

    def wait_until_reconciled(self, seconds: float = 10) -> None:
        """Until the start has found what is there, of which the index may lack the last second."""
        deadline = time.monotonic() + seconds
        while True:
            cache = self.settle()["cache"]
            there = len(self.blob_files()), len(self.manifest_files())
            if (cache["blobs"], cache["manifests"]) == there:
                return
            if time.monotonic() > deadline:
                raise Wrong(f"{there} blobs and manifests are there, and the status says {cache}")
            time.sleep(0.01)

    def check_files(self) -> None:
        """Every file is one of the layout, and whole if its name says so."""
        for path in sorted(self.cache.rglob("*")):
            name = str(path.relative_to(self.cache))
            if not _NAMES.fullmatch(name) and name != "lost+found":
                raise Wrong(f"{name} is left in the cache directory")
            if path.is_symlink():
                raise Wrong(f"{name} is a link")
        for digest, path in self.blob_files().items():
            if digest_of(path.read_bytes()) != digest:
                raise Wrong(f"{path} has {path.stat().st_size} bytes that are not its digest's")
        for digest, path in self.manifest_files().items():
            if digest_of(path.read_bytes().partition(b"\n")[2]) != digest:
                raise Wrong(f"{path} is not the manifest of its digest")

    def check_index(self) -> None:
        """Only for a daemon that has stopped cleanly."""
        index = sqlite3.connect(f"file:{self.cache / 'index.db'}?mode=ro", uri=True)
        try:
            ok = index.execute("PRAGMA integrity_check").fetchall()
            indexed = dict(index.execute("SELECT digest, size_bytes FROM blobs"))
        finally:
            index.close()
        if ok != [("ok",)]:
            raise Wrong(f"the index is damaged: {ok}")
        files = self.blob_files() | self.manifest_files()
        sizes = {digest: path.stat().st_size for digest, path in files.items()}
        if indexed != sizes:
            differ = sorted(dict(indexed.items() ^ sizes.items()))
            raise Wrong(
                f"the index names {len(indexed)} objects, and {len(sizes)} are there; they differ "
                f"in {', '.join(differ[:5])}"
            )

    def object_bytes(self) -> int:
        """Of the files that hold what is cached, was set aside, or is to be continued."""
        kinds = ("blobs", "manifests", "partial", "quarantine")
        files = [p for kind in kinds for p in (self.cache / kind).rglob("*") if p.is_file()]
        return sum(path.stat().st_blocks * 512 for path in files)

    def descriptors(self) -> list[str]:
        """What it has open, without the connections, which come and go."""
        found = []
        for entry in os.scandir(f"/proc/{self.process.pid}/fd"):
            try:
                target = os.readlink(entry.path)
            except FileNotFoundError:
                continue
            if not target.startswith("socket:"):
                found.append(target)
        return sorted(found)


def disk_usage(directory: Path) -> int:
    """As `du -s` counts, in bytes; what goes while it counts is not there any more."""
    total = 0
    stack = [str(directory)]
    while stack:
        try:
            total += os.lstat(stack[-1]).st_blocks * 512
            with os.scandir(stack.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        stack.append(entry.path)
                        continue
                    try:
                        total += entry.stat(follow_symlinks=False).st_blocks * 512
                    except FileNotFoundError:
                        pass
        except FileNotFoundError:
            pass
    return total


class Client:
    """One connection. What it gives back was received whole and is right."""

    def __init__(self, path: Path, timeout: float = 30) -> None:
        self._connection = http.client.HTTPConnection("localhost", timeout=timeout)
        self._connection.sock = socket.socket(socket.AF_UNIX)
        self._connection.sock.settimeout(timeout)
        try:
            self._connection.sock.connect(str(path))
        except OSError as error:
            self.close()
            raise Broken(f"no connection: {error}") from error

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._connection.close()

    def manifest(self, image: Image, reference: str) -> str:
        return self._get(image, f"manifests/{reference}", image.manifest)

    def blob(self, image: Image, digest: str) -> str:
        """Gives the Cache-Status."""
        return self._get(image, f"blobs/{digest}", image.blobs[digest])

    def open(self, image: Image, digest: str) -> Reading:
        """For those who take their time with it."""
        return Reading(self._connection, image, f"blobs/{digest}", image.blobs[digest])

    def _get(self, image: Image, what: str, truth: bytes) -> str:
        self.sent = 0  # bytes of the body that came, for those who ask after it was cut
        with Reading(self._connection, image, what, truth) as reading:
            try:
                return reading.take_rest()
            finally:
                self.sent = len(reading.received)


class Reading:
    """One answer while it comes; take_rest() is how it ends well."""

    def __init__(
        self, connection: http.client.HTTPConnection, image: Image, what: str, truth: bytes
    ) -> None:
        self._connection = connection
        self._path = f"/v2/{REGISTRY}/{image.repository}/{what}"
        self._truth = truth
        self._response: http.client.HTTPResponse | None = None
        self.received = bytearray()

    def __enter__(self) -> Reading:
        return self

    def __exit__(self, *_: object) -> None:
        if self._response:
            self._response.close()

    def take(self, size: int) -> int:
        """At most as many bytes; gives how many came."""
        try:
            if not self._response:
                self._connection.request("GET", self._path)
                self._response = self._connection.getresponse()
            piece = self._response.read(size)
        except (http.client.HTTPException, OSError) as error:
            if isinstance(error, http.client.IncompleteRead):
                self.received += error.partial
            raise Broken(f"{self._path}: {type(error).__name__}: {error}") from error
        self.received += piece
        return len(piece)

    def take_rest(self) -> str:
        """Gives the Cache-Status, if all of it came and is right."""
        while self.take(1 << 20):
            pass
        response, received = self._response, self.received
        assert response
        if response.status != 200:
            raise Wrong(f"{self._path}: {response.status} {bytes(received[:300])!r}")
        length = response.getheader("Content-Length")
        if length is not None and len(received) < int(length):
            raise Broken(f"{self._path}: {len(received)} of {length} bytes")
        if received != self._truth:
            raise Wrong(f"{self._path}: {len(received)} whole bytes that are not the truth")
        return response.getheader("Cache-Status", "")
