"""Searches for secrets where they must not be, in every form that a program might give them.

A secret may stand there whole, or a good part of it; as it is, or as base64 (of itself, or as the
end of `user:secret`), percent-encoded, as hexadecimal digits, or escaped as in JSON. Each of these
forms becomes a few byte strings to look for, long enough that they cannot be there by chance.
"""

from __future__ import annotations

import base64
import json
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, quote_plus

# Shorter secrets than this could be found by chance, so a test has to make longer ones.
SHORTEST = 12
_TEXT = re.compile(rb"[ -~]{%d,}" % SHORTEST)
# So many characters in a row of a secret are already too many.
PART = 24


@dataclass(frozen=True)
class Leak:
    place: str
    kind: str
    form: str

    def __str__(self) -> str:
        return f"{self.kind} ({self.form}) in {self.place}"


class Needles:
    """`secrets`: kind and text, as the stand-in's control port lists them."""

    def __init__(self, secrets: list[tuple[str, str]]) -> None:
        self._needles: dict[bytes, tuple[str, str]] = {}
        for kind, text in secrets:
            if len(text) < SHORTEST:
                raise ValueError(f"a {kind} of {len(text)} characters is too short to look for")
            if not text.replace("\n", "").isascii() or not text.replace("\n", "").isprintable():
                raise ValueError(f"a {kind} with other characters than printable ASCII")
            for form, needle in forms(text):
                self._needles.setdefault(needle, (kind, form))

    def search(self, place: str, content: bytes) -> list[Leak]:
        # Every needle is text of at least this length, so most of an image need not be looked at.
        text = b"\0".join(_TEXT.findall(content))
        found = {where for needle, where in self._needles.items() if needle in text}
        return [Leak(place, kind, form) for kind, form in sorted(found)]

    def search_tree(self, directory: Path) -> list[Leak]:
        """All files below, and the names of all entries."""
        leaks = []
        for path in sorted(directory.rglob("*")):
            name = str(path.relative_to(directory))
            leaks += self.search(f"the name {name}", name.encode(errors="surrogateescape"))
            if path.is_file() and not path.is_symlink():
                leaks += self.search(name, path.read_bytes())
        return leaks


def forms(secret: str) -> list[tuple[str, bytes]]:
    found: list[tuple[str, bytes]] = []
    for part in _parts(secret):
        raw = part.encode()
        found += [
            ("as it is", raw),
            ("percent-encoded", quote(part, safe="").encode()),
            ("as a form", quote_plus(part).encode()),
            ("escaped", json.dumps(part)[1:-1].encode()),
            ("hexadecimal", raw.hex().encode()),
            ("hexadecimal", raw.hex().upper().encode()),
        ]
        # Base64 depends on where in its groups of three the secret begins. Only the groups that
        # the secret fills alone are the same whatever stands before and after it.
        for before in range(3):
            end = (len(raw) + before) // 3 * 3
            whole = base64.b64encode((b"\0" * before + raw)[:end])[4 if before else 0 :]
            found.append(("base64", whole))
            found.append(("base64url", whole.replace(b"+", b"-").replace(b"/", b"_")))
    return list(dict.fromkeys(found))


def _parts(secret: str) -> list[str]:
    """The pieces by which a secret is known: for keys each line, for others begin and end."""
    lines = [line for line in secret.split("\n") if line and not line.startswith("-----")]
    if len(lines) > 1:
        return [line for line in lines if len(line) >= SHORTEST]
    if secret.count(".") == 2 and secret.startswith("eyJ"):
        # A JWT's header is in every other one, and in tests that show how one looks.
        _, payload, signature = secret.split(".")
        middle = len(payload) // 2
        parts = [payload[:PART], payload[middle : middle + PART], payload[-PART:], signature[:PART]]
        return [part for part in parts if len(part) >= SHORTEST]
    if len(secret) <= PART:
        return [secret]
    return [secret[:PART], secret[-PART:]]
