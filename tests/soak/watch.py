"""Looks at the daemon from outside, all through a soak: its memory, its directory, its status, and
what it has asked upstream."""

from __future__ import annotations

import http.client
import os
import re
import threading
import time
from pathlib import Path
from typing import Any

from daemon import SoakDaemon
from history import Fetched, History, Looked, Stayed
from standin.client import ControlClient

LOOK_SECONDS = 1.0
ASK_SECONDS = 5.0
_RANGE = re.compile(r"bytes=(\d+)-(\d*)\Z")
# What a file is, as opposed to a later one of its name.
Identity = tuple[int, int]


def usage(directory: Path) -> tuple[int, dict[str, Identity]]:
    """As `du` counts, each file once however often it is met, since it may be renamed meanwhile;
    and the blobs that are there."""
    seen: dict[int, int] = {}
    blobs: dict[str, Identity] = {}
    stack = [str(directory)]
    while stack:
        place = stack.pop()
        try:
            status = os.lstat(place)
            seen[status.st_ino] = status.st_blocks * 512
            with os.scandir(place) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        stack.append(entry.path)
                        continue
                    try:
                        status = entry.stat(follow_symlinks=False)
                    except FileNotFoundError:
                        continue
                    seen[status.st_ino] = status.st_blocks * 512
                    if "/blobs/" in place:
                        blobs[f"sha256:{entry.name}"] = status.st_ino, status.st_mtime_ns
        except FileNotFoundError:
            continue
    return sum(seen.values()), blobs


class Stays:
    """Which files were the same ones from look to look."""

    def __init__(self, history: History) -> None:
        self._history = history
        self._now: dict[str, tuple[Identity, float, float]] = {}

    def look(self, at: float, blobs: dict[str, Identity]) -> None:
        for digest, (identity, begin, end) in list(self._now.items()):
            if blobs.get(digest) == identity:
                self._now[digest] = identity, begin, at
            else:
                del self._now[digest]
                self._write(digest, begin, end)
        for digest, identity in blobs.items():
            self._now.setdefault(digest, (identity, at, at))

    def end(self) -> None:
        for digest, (_, begin, end) in self._now.items():
            self._write(digest, begin, end)
        self._now.clear()

    def _write(self, digest: str, begin: float, end: float) -> None:
        if end > begin:
            self._history.add(Stayed(digest, begin, end))


class Watch:
    """A thread of its own until stop()."""

    def __init__(self, daemon: SoakDaemon, azure: ControlClient, history: History) -> None:
        self._daemon = daemon
        self._azure = azure
        self._history = history
        self._stays = Stays(history)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._next_ask = 0.0
        self._status: dict[str, Any] = {}
        self.problems: list[BaseException] = []
        self.dead = threading.Event()  # by itself

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()
        self._take_log()
        time.sleep(1.1)  # What is younger than a second is told later.
        self._take_log()
        self._stays.end()

    def _run(self) -> None:
        try:
            while not self._stopped.wait(LOOK_SECONDS):
                self._look()
                if time.monotonic() >= self._next_ask:
                    self._next_ask = time.monotonic() + ASK_SECONDS
                    self._take_log()
        except BaseException as problem:
            self.problems.append(problem)
            raise

    def _look(self) -> None:
        if self._daemon.died_by_itself() and not self.dead.is_set():
            self._daemon.note_death()
            self.dead.set()
        bytes_taken, blobs = usage(self._daemon.cache)
        at = time.time()
        self._stays.look(at, blobs)
        most = self._daemon.config["cache"]["max_size"]
        for _ in range(3):  # What comes and goes while it is counted was not there at one time.
            if bytes_taken > most:
                bytes_taken = min(bytes_taken, usage(self._daemon.cache)[0])
        pid = self._daemon.process.pid
        try:
            status = Path(f"/proc/{pid}/status").read_text()
            descriptors = len(os.listdir(f"/proc/{pid}/fd"))
        except (FileNotFoundError, ProcessLookupError):
            return
        fields = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
        if "VmRSS" not in fields:
            return
        looked = Looked(
            at=at,
            pid=pid,
            rss_kib=int(fields["VmRSS"].split()[0]),
            descriptors=descriptors,
            threads=int(fields["Threads"]),
            disk_bytes=bytes_taken,
        )
        try:
            said = self._daemon.status()
            looked.mode = said["cache"]["mode"]
            looked.blobs = said["cache"]["blobs"]
            looked.evicted = said["cache"]["evicted"]
            looked.registries = {r["name"]: r["state"] for r in said["registries"]}
        except (OSError, RuntimeError, ValueError, http.client.HTTPException):
            pass  # It says nothing while it ends or starts.
        self._history.add(looked)

    def _take_log(self) -> None:
        for entry in self._azure.take_log():
            found = _RANGE.match(entry["range"])
            self._history.add(
                Fetched(
                    role=entry["role"],
                    method=entry["method"],
                    repository=entry["repository"],
                    reference=entry["reference"],
                    digest=entry["digest"],
                    begin=entry["time"],
                    end=entry["time"] + (entry["seconds"] or 0.0),
                    status=entry["status"] or 0,
                    first=int(found[1]) if found else 0,
                    last=int(found[2]) if found and found[2] else -1,
                    sent=entry["bytes_sent"],
                    broken=entry["aborted"],
                    fault=entry["fault"],
                )
            )
