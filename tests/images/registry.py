"""A docker-registry over a directory: start it, and push images into it by its HTTP interface.

Pushing by hand instead of by skopeo keeps the manifest bytes and media types ours: the tests need
both families, and byte-for-byte equality is what they are about.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from layers import Layer

BINARY = "/usr/bin/docker-registry"
CONFIG = """version: 0.1
log:
  level: warn
  accesslog:
    disabled: true
storage:
  filesystem:
    rootdirectory: {root}
    maxthreads: 64
  delete:
    enabled: true
http:
  addr: {address}
  relativeurls: true
"""


@dataclass(frozen=True)
class Family:
    """The media types of one of the two families of manifests."""

    manifest: str
    index: str
    config: str
    layer: str
    layer_gzip: str


OCI = Family(
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.oci.image.config.v1+json",
    "application/vnd.oci.image.layer.v1.tar",
    "application/vnd.oci.image.layer.v1.tar+gzip",
)
DOCKER = Family(
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.docker.container.image.v1+json",
    "application/vnd.docker.image.rootfs.diff.tar",
    "application/vnd.docker.image.rootfs.diff.tar.gzip",
)


@dataclass(frozen=True)
class Manifest:
    media_type: str
    digest: str
    body: bytes
    platform: dict | None = None

    def descriptor(self) -> dict:
        found = {"mediaType": self.media_type, "digest": self.digest, "size": len(self.body)}
        return {**found, "platform": self.platform} if self.platform else found


class Registry:
    """A client for pushing, to an address that is on this machine."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        assert parts.hostname and parts.port
        self._connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=120)

    def push_image(
        self,
        repository: str,
        tag: str | None,
        layers: list[Layer],
        family: Family,
        architecture: str = "amd64",
        command: list[str] | None = None,
    ) -> Manifest:
        """Pushes layers, config and manifest; without a tag it is one of an index's children."""
        config = {
            "architecture": architecture,
            "os": "linux",
            "created": "1970-01-01T00:00:00Z",
            "config": {
                "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
                "Cmd": command or ["/bin/sh"],
            },
            "rootfs": {"type": "layers", "diff_ids": [layer.diff_id for layer in layers]},
            "history": [{"created": "1970-01-01T00:00:00Z"} for _ in layers],
        }
        config_bytes = _json(config)
        config_digest = _digest(config_bytes)
        self._push_blob(repository, config_digest, config_bytes)
        for layer in layers:
            self._push_file(repository, layer)
        manifest = {
            "schemaVersion": 2,
            "mediaType": family.manifest,
            "config": {
                "mediaType": family.config,
                "digest": config_digest,
                "size": len(config_bytes),
            },
            "layers": [
                {
                    "mediaType": family.layer_gzip if layer.compressed else family.layer,
                    "digest": layer.digest,
                    "size": layer.size,
                }
                for layer in layers
            ],
        }
        platform = {"architecture": architecture, "os": "linux"}
        return self._push_manifest(repository, tag, family.manifest, manifest, platform)

    def push_index(
        self, repository: str, tag: str, children: list[Manifest], family: Family
    ) -> Manifest:
        index = {
            "schemaVersion": 2,
            "mediaType": family.index,
            "manifests": [child.descriptor() for child in children],
        }
        return self._push_manifest(repository, tag, family.index, index, None)

    def _push_manifest(self, repository, tag, media_type, value, platform) -> Manifest:
        body = _json(value)
        digest = _digest(body)
        status, _ = self._ask(
            "PUT", f"/v2/{repository}/manifests/{tag or digest}", body, {"Content-Type": media_type}
        )
        if status != 201:
            raise RuntimeError(f"manifest {repository}:{tag} was refused with {status}")
        return Manifest(media_type, digest, body, platform)

    def _push_file(self, repository: str, layer: Layer) -> None:
        with open(layer.path, "rb") as file:
            self._push_blob(repository, layer.digest, file, layer.size)

    def _push_blob(self, repository: str, digest: str, body, size: int | None = None) -> None:
        status, _ = self._ask("HEAD", f"/v2/{repository}/blobs/{digest}")
        if status == 200:
            return
        status, location = self._ask("POST", f"/v2/{repository}/blobs/uploads/")
        if status != 202 or not location:
            raise RuntimeError(f"upload into {repository} was refused with {status}")
        mark = "&" if "?" in location else "?"
        headers = {
            "Content-Type": "application/octet-stream",
            "Content-Length": str(size if size is not None else len(body)),
        }
        # docker-registry takes the whole body in the last step as well; one copy less.
        status, _ = self._ask("PUT", f"{location}{mark}digest={digest}", body, headers)
        if status != 201:
            raise RuntimeError(f"blob {digest} was refused with {status}")

    def _ask(self, method, path, body=None, headers=None) -> tuple[int, str | None]:
        self._connection.request(method, path, body, headers or {})
        response = self._connection.getresponse()
        response.read()
        return response.status, response.getheader("Location")


def write_config(path: Path, root: Path, port: int) -> None:
    path.write_text(CONFIG.format(root=root, address=f"127.0.0.1:{port}"))


@contextmanager
def running(root: Path, scratch: Path):
    """A registry over `root` for as long as the block lasts; gives its URL."""
    port = free_port()
    config = scratch / "registry.yml"
    write_config(config, root, port)
    with open(scratch / "registry.log", "wb") as log:
        process = subprocess.Popen([BINARY, "serve", config], stdout=log, stderr=log)
    try:
        wait_for_port(port, process.poll)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for_port(port: int, exit_code: Callable[[], int | None], seconds: float = 20) -> None:
    """Polls, because docker-registry has no other way to say that it is ready."""
    deadline = time.monotonic() + seconds
    while True:
        if exit_code() is not None:
            raise RuntimeError(f"the registry on port {port} ended with {exit_code()}")
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def _json(value: object) -> bytes:
    # Unusual but legal formatting: a proxy that parses and prints manifests again is found out.
    return json.dumps(value, indent=3).encode() + b"\n"


def _digest(body: bytes) -> str:
    return f"sha256:{hashlib.sha256(body).hexdigest()}"
