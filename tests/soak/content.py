"""What there is upstream: images whose tags move, and the registry that the Azure stand-in reads.

Blobs are files laid out as docker-registry lays them out, because the stand-in sends them from
there; manifests and lists come from here over HTTP, so that the instant at which a tag moves is
known exactly. Every change is in the history.
"""

from __future__ import annotations

import hashlib
import http.server
import json
import math
import random
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from history import History, Made, Moved, Ruled
from origin import Image, digest_of, make_image

KIB = 1024
MEDIA_TYPE = "application/vnd.oci.image.manifest.v1+json"
# Where an image of this repository is looked for by clients, and where the stand-in keeps it.
ACR = "contoso.azurecr.io"
HUB = "docker.io"


@dataclass
class Repository:
    registry: str
    name: str  # as clients ask for it
    tags: dict[str, str] = field(default_factory=dict)  # tag -> manifest
    images: dict[str, Image] = field(default_factory=dict)  # manifest -> image
    allowed: bool = True

    @property
    def inside(self) -> str:
        """Its name at the registry behind the stand-in."""
        return f"contoso/{self.name}" if self.registry == ACR else f"hub/{self.name}"

    def path(self, kind: str, reference: str) -> str:
        return f"/v2/{self.registry}/{self.name}/{kind}/{reference}"

    def image_name(self, tag: str) -> str:
        return f"{self.registry}/{self.name}:{tag}"


class Content:
    """Changed by one thread, read by all."""

    def __init__(self, directory: Path, history: History, chance: random.Random) -> None:
        self.root = directory
        self._files = directory / "docker/registry/v2"
        self._history = history
        self._chance = chance
        self._lock = threading.Lock()
        self._bytes: dict[str, bytes] = {}
        self._made = 0
        self.repositories: dict[str, Repository] = {}
        self._server = _Server(("127.0.0.1", 0), _handler_for(self))
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True
        )
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def add_repository(self, registry: str, name: str) -> Repository:
        found = Repository(registry, name)
        self.repositories[name] = found
        return found

    # ---- its content ---------------------------------------------------------------------------

    def make(self, repository: Repository, sizes: list[int]) -> Image:
        """A new image, whose layers are new too."""
        self._made += 1
        return self._put(repository, make_image(repository.name, sizes, self._made))

    def share(self, image: Image, repository: Repository) -> None:
        """The same image, by the same digests, in another repository."""
        self._put(repository, Image(repository.name, image.manifest, image.blobs))

    def _put(self, repository: Repository, image: Image) -> Image:
        for digest, content in image.blobs.items():
            hexed = digest.removeprefix("sha256:")
            blob = self._files / "blobs/sha256" / hexed[:2] / hexed / "data"
            blob.parent.mkdir(parents=True, exist_ok=True)
            blob.write_bytes(content)
            layers = self._files / "repositories" / repository.inside / "_layers/sha256"
            (layers / hexed).mkdir(parents=True, exist_ok=True)
            (layers / hexed / "link").write_text(digest)
        with self._lock:
            self._bytes |= image.blobs
            self._bytes[image.digest] = image.manifest
            repository.images[image.digest] = image
            self._history.add(
                Made(
                    repository.name, image.digest, len(image.manifest),
                    {digest: len(content) for digest, content in image.blobs.items()}, time.time(),
                )
            )  # fmt: skip
        return image

    def move(self, repository: Repository, tag: str, image: Image | None) -> None:
        """The tag names this image from now on, or is gone."""
        with self._lock:
            digest = image.digest if image else ""
            if image:
                repository.tags[tag] = digest
            else:
                repository.tags.pop(tag, None)
            self._history.add(Moved(repository.name, tag, digest, time.time()))

    def rule(self, repository: Repository, allowed: bool) -> None:
        """For the history; that the stand-in knows is the caller's business."""
        repository.allowed = allowed
        self._history.add(Ruled(repository.name, allowed, time.time()))

    def truth(self, digest: str) -> bytes:
        return self._bytes[digest]

    def some_image(self, repository: Repository) -> Image:
        """The newer, the likelier."""
        images = list(repository.images.values())
        return images[-1 - min(len(images) - 1, int(self._chance.expovariate(0.7)))]

    # ---- as the registry behind the stand-in ---------------------------------------------------

    def manifest(self, inside: str, reference: str) -> bytes | None:
        repository = self._inside(inside)
        if not repository:
            return None
        with self._lock:
            digest = reference if ":" in reference else repository.tags.get(reference, "")
            image = repository.images.get(digest)
        return image.manifest if image else None

    def tags(self, inside: str) -> list[str] | None:
        repository = self._inside(inside)
        if not repository:
            return None
        with self._lock:
            return sorted(repository.tags)

    def _inside(self, inside: str) -> Repository | None:
        return self.repositories.get(inside.partition("/")[2])


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128


def _handler_for(content: Content) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            inside, _, rest = self.path.removeprefix("/v2/").rpartition("/manifests/")
            if inside:
                manifest = content.manifest(inside, rest)
                if manifest is not None:
                    digest = "sha256:" + hashlib.sha256(manifest).hexdigest()
                    self._answer(200, MEDIA_TYPE, manifest, digest)
                else:
                    self._unknown("MANIFEST_UNKNOWN")
                return
            inside = self.path.removeprefix("/v2/").removesuffix("/tags/list")
            tags = content.tags(inside)
            if tags is None:
                self._unknown("NAME_UNKNOWN")
            else:
                body = json.dumps({"name": inside, "tags": tags}).encode()
                self._answer(200, "application/json", body)

        do_HEAD = do_GET

        def _unknown(self, code: str) -> None:
            body = json.dumps({"errors": [{"code": code, "message": "unknown"}]}).encode()
            self._answer(404, "application/json", body)

        def _answer(self, status: int, media_type: str, body: bytes, digest: str = "") -> None:
            self.send_response(status)
            self.send_header("Content-Type", media_type)
            self.send_header("Content-Length", str(len(body)))
            if digest:
                self.send_header("Docker-Content-Digest", digest)
                self.send_header("ETag", f'"{digest}"')
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    return Handler


def layer_sizes(chance: random.Random, count: int, median_kib: float = 100) -> list[int]:
    """As images have them: most layers are small, a few make up most of the bytes."""
    drawn = [chance.lognormvariate(math.log(median_kib), 1.3) for _ in range(count)]
    return [int(min(4096.0, size) * KIB) + 1 for size in drawn]


def fill(content: Content, chance: random.Random, repositories: int, images: int) -> None:
    """The repositories of a soak: private ones, public ones of the Hub, and two about rights.

    `secret` never allows us anything and has what `app0` has, by the same digests; what `team`
    allows changes.
    """
    for number in range(repositories):
        registry = HUB if number % 6 == 5 else ACR
        name = f"library/pub{number}" if registry == HUB else f"app{number}"
        repository = content.add_repository(registry, name)
        for tag in range(images):
            content.move(repository, f"v{tag}", content.make(repository, layer_sizes(chance, 4)))
    for name in ("secret", "team"):
        repository = content.add_repository(ACR, name)
        if name == "secret":
            content.rule(repository, False)
        for tag, image in enumerate(list(content.repositories["app0"].images.values())):
            if name == "secret":
                content.share(image, repository)
                content.move(repository, f"v{tag}", image)
            else:
                content.move(repository, f"v{tag}", content.make(repository, [50_000, 20_000]))
    # Large enough to come in parts over several connections.
    large = content.add_repository(ACR, "large")
    for tag in range(2):
        content.move(large, f"v{tag}", content.make(large, [12 * KIB * KIB + tag, 9 * KIB * KIB]))


__all__ = ["ACR", "HUB", "Content", "Repository", "digest_of", "fill", "layer_sizes"]
