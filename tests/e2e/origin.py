"""A registry inside the test's own process: images of seeded bytes, Ranges, a count of requests.

It costs milliseconds where the lab's real one costs a second, for tests that start a daemon
hundreds of times.
"""

from __future__ import annotations

import hashlib
import http.server
import json
import random
import re
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

_MEDIA = "application/vnd.oci.image."
_RANGE = re.compile(r"bytes=(\d+)-(\d*)\Z")
_PIECE = 128 * 1024


def digest_of(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


@dataclass
class Image:
    """A manifest and its blobs, config first."""

    repository: str
    manifest: bytes
    blobs: dict[str, bytes] = field(repr=False)

    @property
    def digest(self) -> str:
        return digest_of(self.manifest)

    @property
    def bytes(self) -> int:
        return sum(map(len, self.blobs.values()))


def make_image(repository: str, sizes: list[int], seed: int) -> Image:
    source = random.Random(f"{repository} {seed}")
    contents = [source.randbytes(size) for size in sizes]
    config = json.dumps({"architecture": "amd64", "os": "linux", "seed": seed}).encode()
    layers = [
        {"mediaType": _MEDIA + "layer.v1.tar", "digest": digest_of(c), "size": len(c)}
        for c in contents
    ]
    manifest = {
        "schemaVersion": 2,
        "mediaType": _MEDIA + "manifest.v1+json",
        "config": {
            "mediaType": _MEDIA + "config.v1+json",
            "digest": digest_of(config),
            "size": len(config),
        },
        "layers": layers,
    }
    blobs = {digest_of(content): content for content in [config, *contents]}
    return Image(repository, json.dumps(manifest).encode(), blobs)


class Origin:
    """Serves the images it is given, on a port of its own, until it is closed."""

    def __init__(self) -> None:
        self._blobs: dict[str, bytes] = {}
        self._manifests: dict[tuple[str, str], bytes] = {}
        # ("GET", digest) -> requests, those for a part of it among them.
        self.requests: Counter[tuple[str, str]] = Counter()
        self.continued = 0  # requests for the rest of a blob
        self._held: dict[str, tuple[int, threading.Event]] = {}
        self._lock = threading.Lock()
        self._server = _Server(("127.0.0.1", 0), _handler_for(self))
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True
        )
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def add(self, image: Image) -> Image:
        self._blobs.update(image.blobs)
        self._manifests[image.repository, image.digest] = image.manifest
        self._manifests[image.repository, "1"] = image.manifest
        return image

    def remove(self, image: Image) -> None:
        """So that thousands of images do not stay in memory."""
        for digest in image.blobs:
            self._blobs.pop(digest, None)
            self.requests.pop(("GET", digest), None)
        self._manifests.pop((image.repository, image.digest), None)
        self._manifests.pop((image.repository, "1"), None)

    def hold(self, digest: str, after: int) -> Callable[[], None]:
        """Sends so many bytes of it and no more until what this gives is called."""
        released = threading.Event()
        self._held[digest] = after, released

        def release() -> None:
            del self._held[digest]
            released.set()

        return release

    def pause(self, digest: str, at: int, end: int) -> int:
        """Where to send to now, having come to `at`; waits there if it is held."""
        after, released = self._held.get(digest, (end, None))
        if released and at >= after:
            released.wait(60)
            return end
        return min(end, max(after, at))

    def fetches(self, digest: str) -> int:
        return self.requests["GET", digest]

    def answer(self, method: str, path: str) -> tuple[str, str, bytes] | None:
        """Digest, media type and bytes of what is asked for."""
        repository, kind, reference = path.removeprefix("/v2/").rsplit("/", 2)
        if kind == "blobs":
            content, media_type = self._blobs.get(reference), "application/octet-stream"
        else:
            content = self._manifests.get((repository, reference))
            media_type = _MEDIA + "manifest.v1+json"
        if content is None:
            return None
        digest = reference if ":" in reference else digest_of(content)
        with self._lock:
            self.requests[method, digest] += 1
        return digest, media_type, content

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def handle_error(self, request, client_address) -> None:
        """A daemon that is killed leaves its connections; that is no news here."""


def _handler_for(origin: Origin) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            found = origin.answer(self.command, self.path) if self.path != "/v2/" else None
            if not found:
                self.send_response(200 if self.path == "/v2/" else 404)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            digest, media_type, content = found
            begin, end = 0, len(content)
            asked = _RANGE.match(self.headers.get("Range", ""))
            if asked:
                begin = int(asked[1])
                end = min(end, int(asked[2]) + 1) if asked[2] else end
            if asked and begin >= end:
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(content)}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(206 if asked else 200)
            if asked:
                self.send_header("Content-Range", f"bytes {begin}-{end - 1}/{len(content)}")
            self.send_header("Content-Type", media_type)
            self.send_header("Content-Length", str(end - begin))
            self.send_header("Docker-Content-Digest", digest)
            self.send_header("Accept-Ranges", "bytes")
            self.send_header("ETag", f'"{digest}"')
            self.end_headers()
            if self.command == "HEAD":
                return
            if begin:
                origin.continued += 1
            view, at = memoryview(content), begin
            while at < end:
                until = min(at + _PIECE, origin.pause(digest, at, end))
                self.wfile.write(view[at:until])
                at = until

        do_HEAD = do_GET

        def log_message(self, *_: object) -> None:
            pass

    return Handler
