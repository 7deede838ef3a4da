"""A whole small world for one test: origin registry, Azure stand-in, staithed, and real clients.

    class Something(LabTest):
        def test_it(self):
            lab = self.lab            # origin and stand-in run, staithed is configured
            lab.staithed.start()
            ...

Everything lives in one temporary directory and is stopped in the reverse order of its start.
When a test fails, the ends of all logs are printed and the logs are kept below build/e2e-logs.

Environment: STAITHE_BIN_DIR (default build/release), STAITHE_IMAGES_DIR (default build/images).
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path
from typing import Any

_TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(_TESTS / "images"), str(_TESTS / "fake")]

import make_images  # noqa: E402
from clients import Containerd, Dockerd, Podman, Skopeo, unmount_below  # noqa: E402
from process import Process  # noqa: E402
from registry import BINARY, free_port, wait_for_port, write_config  # noqa: E402
from staithed import REPOSITORY_ROOT, Staithed  # noqa: E402
from standin.client import ControlClient, Reply, ask  # noqa: E402

__all__ = ["Lab", "LabTest", "MIB", "Reply", "needs_root"]

MIB = 1024 * 1024

needs_root = unittest.skipUnless(os.geteuid() == 0, "containers need root on this machine")


class Lab:
    def __init__(self, noise: list[tuple[str, int]] | None = None, outlive: bool = False) -> None:
        self._outlive = outlive
        self._stops: list[Any] = []
        self.processes: list[Process] = []
        images = os.environ.get("STAITHE_IMAGES_DIR")
        store = Path(images) if images else REPOSITORY_ROOT / "build/images"
        self._images = make_images.ensure(store.resolve(), noise)
        self._store = store.resolve() / "registry"
        # A short name: paths of Unix sockets have little room.
        self.directory = Path(tempfile.mkdtemp(prefix="staithe-"))
        try:
            self.origin = self._start_origin()
            self.azure_addresses = self._start_azure()
            self.azure = ControlClient(self.azure_addresses["control"])
            self.staithed = self.another_staithed("staithed")
        except BaseException:
            self.close()
            raise

    def _start_origin(self) -> str:
        port = free_port()
        config = self.directory / "origin.yml"
        write_config(config, self._store, port)
        process = self._run("origin", [BINARY, "serve", config])
        wait_for_port(port, process.exit_code)
        return f"http://127.0.0.1:{port}"

    def second_origin(self) -> str:
        """Another registry over the same images, under the names that clients know them by: what
        they fall back to when the daemon cannot serve them."""
        root = self.directory / "second-origin"
        inside = root / "docker/registry/v2"
        repositories = self._store / "docker/registry/v2/repositories"
        (inside / "repositories").mkdir(parents=True)
        (inside / "blobs").symlink_to(self._store / "docker/registry/v2/blobs")
        for found in [*(repositories / "contoso").iterdir(), repositories / "hub/library"]:
            (inside / "repositories" / found.name).symlink_to(found)
        port = free_port()
        config = self.directory / "second-origin.yml"
        write_config(config, root, port)
        process = self._run("second-origin", [BINARY, "serve", config])
        wait_for_port(port, process.exit_code)
        return f"http://127.0.0.1:{port}"

    def _start_azure(self) -> dict[str, Any]:
        command = [
            "/usr/bin/python3",
            _TESTS / "fake/azure.py",
            "--dir", self.directory / "azure",
            "--origin", self.origin,
            "--origin-root", self._store,
        ]  # fmt: skip
        process = self._run("azure", command, stdout=subprocess.PIPE)
        line = process.stdout.readline()
        if not line:
            process.wait(10)
            process.must_run()
        return json.loads(line)

    def _run(self, name: str, command: list, **more: Any) -> Process:
        log = self.directory / f"{name}.log"
        process = Process(name, command, log, outlive=self._outlive, **more)
        self._stops.append(process.stop)
        self.processes.append(process)
        return process

    def another_staithed(self, name: str) -> Staithed:
        """Configured for this lab's upstreams, not started."""
        staithed = Staithed(self.directory / name, self.azure_addresses, self._outlive)
        self._stops.append(staithed.stop)
        return staithed

    def digest(self, image: str) -> str:
        """What the origin has under `contoso/busybox:1`."""
        return self._images[image]["digest"]

    def image(self, image: str) -> dict[str, Any]:
        return self._images[image]

    def origin_file(self, digest: str) -> Path:
        """The true bytes of a blob."""
        hexed = digest.removeprefix("sha256:")
        return self._store / "docker/registry/v2/blobs/sha256" / hexed[:2] / hexed / "data"

    def from_origin(self, path: str, method: str = "GET", **headers: str) -> Reply:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        return ask(method, self.origin + path, sent)

    def skopeo(self) -> Skopeo:
        return Skopeo(self._client_directory("skopeo"))

    def containerd(self) -> Containerd:
        found = Containerd(self._client_directory("containerd"), self._outlive)
        self._stops.append(found.stop)
        self.processes.append(found.process)
        return found

    def dockerd(
        self,
        mirrors: list[str],
        straight: list[str] | None = None,
        config: Path | None = None,
        certificates: Path | None = None,
    ) -> Dockerd:
        directory = self._client_directory("dockerd")
        found = Dockerd(directory, self.containerd(), mirrors, straight, config, certificates)
        self._stops.append(found.stop)
        self.processes.append(found.process)
        return found

    def podman(self, registry: str, mirror: str) -> Podman:
        return Podman(self._client_directory("podman"), registry, mirror)

    def _client_directory(self, name: str) -> Path:
        taken = len(list(self.directory.glob(f"{name}*")))
        return self.directory / (f"{name}{taken}" if taken else name)

    def logs(self) -> list[Path]:
        return sorted(self.directory.glob("**/*.log"))

    def keep_logs(self, name: str) -> None:
        """Copies the logs to where they survive, and prints how each of them ends."""
        kept = REPOSITORY_ROOT / "build/e2e-logs" / name
        kept.mkdir(parents=True, exist_ok=True)
        for log in self.logs():
            shutil.copy(log, kept / log.name)
            lines = log.read_text(errors="replace").splitlines()[-25:]
            if lines:
                print(f"--- {log.name}", *lines, sep="\n", file=sys.stderr)
        print(f"--- logs are in {kept}", file=sys.stderr)

    def close(self) -> None:
        for stop in reversed(self._stops):
            stop()
        self._stops.clear()
        unmount_below(self.directory)
        shutil.rmtree(self.directory, ignore_errors=True)


class LabTest(unittest.TestCase):
    """A test with a lab of its own. `noise` names images of random bytes that it needs."""

    noise: list[tuple[str, int]] = []
    lab: Lab

    def setUp(self) -> None:
        self.lab = Lab(self.noise)
        # Clean-ups run last in, first out: the logs are looked at before they are removed.
        self.addCleanup(self.lab.close)
        self.addCleanup(self._keep_logs_of_failure)

    def run(self, result: unittest.TestResult | None = None) -> unittest.TestResult | None:
        self._result = result
        return super().run(result)

    def assert_bytes(self, found: bytes, expected: bytes) -> None:
        """Equality of bodies; megabytes in a failure's message help nobody."""
        same = found == expected
        self.assertTrue(same, f"{len(found)} bytes came that are not the {len(expected)} expected")

    def _keep_logs_of_failure(self) -> None:
        result = self._result
        if not result:
            return
        failed = [test for test, _ in result.failures + result.errors]
        # A failed subtest is an object of its own that knows its test.
        if any(getattr(test, "test_case", test) is self for test in failed):
            self.lab.keep_logs(self.id())


def _end_orderly(*_: object) -> None:
    raise SystemExit(1)


# A test that is told to end stops what it has started, as it would at its own end.
signal.signal(signal.SIGTERM, _end_orderly)
