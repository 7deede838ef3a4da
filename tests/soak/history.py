"""What happened in a soak, as it happened: one line of JSON for each thing, all times of one clock.

Clients write down each request when it has ended, with when it began; the world what it changed;
the sampler what it saw. Nothing is judged here: checks.py reads a History and judges it, so that a
history can be judged again, by other rules, long after the run.

Times are seconds of the wall clock of this machine (time.time()), which all writers share.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class Asked:
    """One request of a client, and what came."""

    client: str
    kind: str  # manifest | blob | tags | ping | odd | control
    method: str
    repository: str
    reference: str  # a tag or a digest
    begin: float
    end: float = 0.0
    # whole: all of it came; cut: the daemon ended it before that; refused: no connection;
    # left: the client went away on purpose; timeout: it was over the deadline
    outcome: str = ""
    status: int = 0
    length: int = -1  # Content-Length; -1: none
    received: int = 0
    right: bool | None = None  # the bytes are the true ones; None: not for this one to say
    served: str = ""  # Docker-Content-Digest
    cache_status: str = ""
    age: int = -1
    range: str = ""
    patience: float = 0.0  # how long it may take; 0: as long as the client pleases, for a slow one
    note: str = ""  # of a request that is wrong on purpose: what is wrong with it

    @property
    def is_tag(self) -> bool:
        return self.kind == "manifest" and ":" not in self.reference

    @property
    def stale(self) -> bool:
        return "fwd=stale" in self.cache_status

    @property
    def served_content(self) -> bool:
        return self.status in (200, 206)


@dataclass
class Fetched:
    """One request that the daemon made upstream, as upstream saw it."""

    role: str  # acr | hub | storage | imds | ...
    method: str
    repository: str
    reference: str
    digest: str  # of a blob
    begin: float
    end: float
    status: int
    first: int  # of the bytes asked for
    last: int  # -1: to the end
    sent: int  # bytes of the body
    broken: bool  # it did not go out whole
    fault: str  # what was done to it on purpose


@dataclass
class Looked:
    """One look at the daemon from outside."""

    at: float
    pid: int
    rss_kib: int
    descriptors: int
    threads: int
    disk_bytes: int  # as du counts the cache directory
    mode: str = ""  # of the cache; empty: it did not answer
    registries: dict[str, str] = field(default_factory=dict)  # name -> state
    blobs: int = 0
    evicted: int = 0


@dataclass
class Stayed:
    """A blob's file that was the same one at the looks from `begin` to `end`."""

    digest: str
    begin: float
    end: float


@dataclass
class Faulted:
    """Something was wrong, on purpose, from `begin` to `end`."""

    name: str
    kind: str  # network | lie | token | disk | content | life | configuration
    begin: float
    end: float


@dataclass
class Moved:
    """A tag names another manifest from `at` on; none: it was deleted."""

    repository: str
    tag: str
    digest: str
    at: float


@dataclass
class Made:
    """A manifest and its blobs exist upstream, in this repository, from `at` on."""

    repository: str
    manifest: str
    manifest_bytes: int
    blobs: dict[str, int]  # digest -> bytes
    at: float


@dataclass
class Ruled:
    """Whether this machine may pull from a repository, from `at` on."""

    repository: str
    allowed: bool
    at: float


@dataclass
class Lived:
    """The daemon: ready | killed | stopped | died (by itself, which it must not)."""

    what: str
    at: float
    pid: int
    note: str = ""


@dataclass
class Configured:
    """What is in force from `at` on."""

    at: float
    max_size: int
    tag_ttl: dict[str, float]  # repository -> seconds
    token_life: float  # of the registry's access tokens, which are good for as long after a change


Thing = Asked | Fetched | Looked | Stayed | Faulted | Moved | Made | Ruled | Lived | Configured
KINDS: dict[str, type] = {
    kind.__name__: kind
    for kind in (
        Asked, Fetched, Looked, Stayed, Faulted, Moved, Made, Ruled, Lived, Configured,
    )
}  # fmt: skip


class History:
    """All of it in memory, each kind in the order in which it was written down. Any thread may
    add; with a file everything goes there as well, line by line."""

    def __init__(self, file: Path | None = None) -> None:
        self._lock = threading.Lock()
        self._file = open(file, "w") if file else None
        self._things: dict[str, list[Any]] = {name: [] for name in KINDS}

    def add(self, thing: Thing) -> None:
        name = type(thing).__name__
        line = json.dumps({"": name, **asdict(thing)}) + "\n" if self._file else ""
        with self._lock:
            self._things[name].append(thing)
            if self._file:
                self._file.write(line)

    def close(self) -> None:
        with self._lock:
            if self._file:
                self._file.close()
                self._file = None

    @staticmethod
    def read(file: Path) -> History:
        history = History()
        with open(file) as lines:
            for line in lines:
                fields = json.loads(line)
                history.add(KINDS[fields.pop("")](**fields))
        return history

    def of(self, kind: type) -> list[Any]:
        with self._lock:
            return list(self._things[kind.__name__])

    def around(self, at: float, seconds: float) -> Iterator[Thing]:
        """What happened near an instant, in order; for a person who reads of a violation."""
        found = []
        with self._lock:
            for things in self._things.values():
                for thing in things:
                    begin = getattr(thing, "begin", None) or getattr(thing, "at", 0.0)
                    if abs(begin - at) <= seconds:
                        found.append((begin, thing))
        found.sort(key=lambda pair: pair[0])
        return iter(thing for _, thing in found)
