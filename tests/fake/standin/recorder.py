"""The log of every request: what a test may prove from it, and nothing that is secret.

An entry is there from the moment the request has been read, with `done` false, so that a request
that is held at a barrier can be counted. Query values, tokens and bodies are never recorded;
the names of the query and form keys are, because their presence is what the protocol prescribes,
and of each secret a hash, so that a test can tell which of them came where.
"""

from __future__ import annotations

import re
import threading
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass
class Entry:
    seq: int
    time: float
    role: str
    connection: int
    tls: bool
    method: str
    path: str
    query_keys: list[str]
    host: str
    authorization: str  # none | basic | bearer | other
    range: str
    kind: str = ""  # what a request is for, see kind_of
    form_keys: list[str] = field(default_factory=list)
    secrets: dict[str, str] = field(default_factory=dict)  # where it stood -> SHA-256
    status: int | None = None
    seconds: float | None = None
    bytes_sent: int = 0  # of the body
    done: bool = False
    aborted: bool = False  # the body did not go out whole
    registry: str = ""
    repository: str = ""
    reference: str = ""  # tag or digest
    digest: str = ""  # of the blob that was asked for
    scope: str = ""
    granted: str = ""
    identity: str = ""
    refusal: str = ""  # why the stand-in said no
    fault: str = ""  # the fault that a test had ordered for it
    extra: dict[str, Any] = field(default_factory=dict)


ROLES_OF_IDENTITY = (
    "imds", "arc", "app-service", "machine-learning", "cloud-shell", "service-fabric",
)  # fmt: skip
_KINDS = (
    (re.compile(r"/oauth2/exchange"), "exchange"),
    (re.compile(r"/oauth2/token|/token|/v2/token"), "token"),
    (re.compile(r"/v2/?"), "probe"),
    (re.compile(r"/v2/.+/(manifests|blobs|tags|referrers)/[^/]+"), ""),
)


def kind_of(role: str, path: str) -> str:
    """identity, entra, exchange, token, probe, manifests, blobs, tags, referrers, storage, or
    other: the links of the credential chain, and the parts of the data plane."""
    if role in ROLES_OF_IDENTITY:
        return "identity"
    if role in ("entra", "proxy"):
        return "entra"
    if role == "storage":
        return "storage"
    for pattern, kind in _KINDS:
        found = pattern.fullmatch(path)
        if found:
            return kind or found[1]
    return "other"


class Recorder:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._entries: list[Entry] = []
        self._next = 1
        self._imds_now = 0
        self._imds_most = 0

    def begin(self, **fields: Any) -> Entry:
        with self._lock:
            kind = kind_of(fields["role"], fields["path"])
            entry = Entry(seq=self._next, time=time.time(), kind=kind, **fields)
            self._next += 1
            self._entries.append(entry)
            if entry.role == "imds":
                self._imds_now += 1
                self._imds_most = max(self._imds_most, self._imds_now)
            self._changed.notify_all()
            return entry

    def end(self, entry: Entry) -> None:
        with self._lock:
            entry.seconds = round(time.time() - entry.time, 6)
            entry.done = True
            if entry.role == "imds":
                self._imds_now -= 1
            self._changed.notify_all()

    def imds_at_once(self) -> int:
        """Requests to the metadata service that have no answer yet, held ones included."""
        with self._lock:
            return self._imds_now

    def imds_in_last_second(self) -> int:
        since = time.time() - 1
        with self._lock:
            return sum(1 for e in self._entries if e.role == "imds" and e.time > since)

    def log(self) -> list[dict[str, Any]]:
        with self._lock:
            return [asdict(entry) for entry in self._entries]

    def take(self) -> list[dict[str, Any]]:
        """Those that are over, and are looked at for no rate any more; the others stay."""
        since = time.time() - 1
        with self._lock:
            over = [e for e in self._entries if e.done and e.time < since]
            self._entries = [e for e in self._entries if not (e.done and e.time < since)]
        return [asdict(entry) for entry in over]

    def reset(self) -> None:
        with self._lock:
            self._entries.clear()
            self._imds_most = self._imds_now

    def wait_for(self, match: dict[str, Any], count: int, timeout: float) -> int:
        """Waits until `count` entries have all the given field values; returns how many have."""

        def matching() -> int:
            return sum(
                1
                for entry in self._entries
                if all(str(getattr(entry, key)) == str(value) for key, value in match.items())
            )

        with self._lock:
            self._changed.wait_for(lambda: matching() >= count, timeout)
            return matching()

    def stats(self) -> dict[str, Any]:
        with self._lock:
            entries = list(self._entries)
            imds_most = self._imds_most
        of = {
            role: [e for e in entries if e.role == role]
            for role in (*ROLES_OF_IDENTITY, "entra", "proxy", "acr", "hub", "auth", "other",
                         "storage")
        }  # fmt: skip
        acr, storage = of["acr"], of["storage"]
        exchanges = [e for e in acr if e.path == "/oauth2/exchange"]
        tokens = [e for e in acr if e.path == "/oauth2/token"]
        data = [e for e in acr + of["hub"] + of["other"] if e.path.startswith("/v2/")]
        blob_bodies = [
            e for e in storage + data if e.digest and e.method == "GET" and e.status in (200, 206)
        ]
        manifests = [e for e in data if "/manifests/" in e.path]
        sent: Counter[str] = Counter()  # bytes by digest
        for e in blob_bodies:
            sent[e.digest] += e.bytes_sent
        return {
            "requests": len(entries),
            "requests_by_role": {role: len(found) for role, found in of.items()},
            "requests_by_kind": Counter(e.kind for e in entries),
            "imds_requests": len(of["imds"]),
            "imds_max_concurrent": imds_most,
            "entra_requests": len(of["entra"]),
            "exchanges": sum(1 for e in exchanges if e.status == 200),
            "exchanges_refused": sum(1 for e in exchanges if e.status not in (None, 200)),
            "token_requests": len(tokens),
            "tokens": Counter(f"{e.registry} {e.scope}" for e in tokens if e.status == 200),
            "hub_tokens": Counter(e.scope for e in of["auth"] if e.status == 200),
            "manifest_heads": sum(1 for e in manifests if e.method == "HEAD"),
            "manifest_gets": sum(1 for e in manifests if e.method == "GET"),
            "manifest_bytes": sum(e.bytes_sent for e in manifests),
            "blob_gets": Counter(e.digest for e in blob_bodies),
            "blob_bytes": sum(e.bytes_sent for e in blob_bodies),
            "blob_sent": sent,
            "blob_redirects": sum(1 for e in data if e.digest and e.status == 307),
            "data_401": sum(1 for e in data if e.status == 401),
            "data_401_with_bearer": sum(
                1 for e in data if e.status == 401 and e.authorization == "bearer"
            ),
            "data_with_expired_token": sum(1 for e in data if e.refusal == "expired"),
            "storage_requests": len(storage),
            "storage_with_authorization": sum(1 for e in storage if e.authorization != "none"),
            "refusals": Counter(f"{e.role}: {e.refusal}" for e in entries if e.refusal),
        }
