"""Every secret that the stand-in has made or holds, so that a test can search for leaks of them.

Only the control port gives them out; the log holds nothing but hashes.
"""

from __future__ import annotations

import hashlib
import threading


class Vault:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._found: dict[str, str] = {}

    def add(self, kind: str, text: str) -> str:
        with self._lock:
            self._found[text] = kind
        return text

    def all(self) -> list[dict[str, str]]:
        with self._lock:
            return [{"kind": kind, "text": text} for text, kind in self._found.items()]


def fingerprint(secret: str) -> str:
    """How a secret stands in the log: the same for the same text, and of no use to anyone."""
    return hashlib.sha256(secret.encode(errors="replace")).hexdigest()
