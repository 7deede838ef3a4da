"""The real registry behind the stand-in: a docker-registry, asked over HTTP and read on disk.

Manifests and lists come through its HTTP interface byte for byte. Blobs are read from its storage
directory, because the storage host has to serve gigabytes at the speed of the disk.
"""

from __future__ import annotations

import http.client
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
REPOSITORY = re.compile(f"{_COMPONENT}(?:/{_COMPONENT})*")
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
REFERENCE = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}|sha256:[0-9a-f]{64}")


@dataclass
class Answer:
    status: int
    headers: list[tuple[str, str]]
    body: bytes
    length: int | None


class Origin:
    def __init__(self, url: str, root: Path) -> None:
        parts = urlsplit(url)
        if parts.scheme != "http" or not parts.hostname or not parts.port:
            raise ValueError("--origin must be http://host:port")
        self._address = (parts.hostname, parts.port)
        self._root = root / "docker/registry/v2"

    def ask(self, method: str, path: str, accept: str | None) -> Answer:
        connection = http.client.HTTPConnection(*self._address, timeout=30)
        try:
            connection.request(method, path, headers={"Accept": accept} if accept else {})
            response = connection.getresponse()
            body = response.read()
            length = response.getheader("Content-Length")
            kept = ("content-type", "docker-content-digest", "etag")
            headers = [(k, v) for k, v in response.getheaders() if k.lower() in kept]
            return Answer(response.status, headers, body, int(length) if length else None)
        finally:
            connection.close()

    def blob(self, repository: str, digest: str) -> Path | None:
        """The file of a blob, if this repository has it."""
        hexed = digest.removeprefix("sha256:")
        link = self._root / "repositories" / repository / "_layers/sha256" / hexed / "link"
        path = self.blob_path(digest)
        return path if link.is_file() and path.is_file() else None

    def blob_path(self, digest: str) -> Path:
        hexed = digest.removeprefix("sha256:")
        return self._root / "blobs/sha256" / hexed[:2] / hexed / "data"
