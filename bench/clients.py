#!/usr/bin/python3
"""What do the clients that users have gain: `skopeo copy` and `ctr images pull`, cold and warm?

An image of 20 layers of 20 MiB, from a docker-registry, beside a docker-registry as a cache of it.
One run pulls directly, then through each cache, which is empty and just started: cold, and once
all is stored, warm. Every client begins with nothing. ctr unpacks as well, which no cache makes
faster; its CPU seconds are those of its containerd too.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path

from measuring import MIB, ROOT, Report, Watch, cpu_seconds, measure, say, settle

sys.path[:0] = [str(ROOT / f"tests/{name}") for name in ("e2e", "images", "fake")]

from clients import Containerd, Skopeo, unmount_below  # noqa: E402
from layers import noise  # noqa: E402
from process import Process  # noqa: E402
from registry import BINARY, OCI, Registry, free_port, wait_for_port  # noqa: E402
from staithed import binary, toml  # noqa: E402

NAME = "bench/image:1"
REGISTRY = "bench.local"
_LINE = re.compile(r'"(GET|HEAD) (/v2/\S*) HTTP/1\.1" (\d+) (\d+)')
_QUIET = 0.15
_QUIET_PATIENCE = 30


class Server:
    """A registry of some kind on a port of its own."""

    def __init__(self, directory: Path, name: str) -> None:
        self.directory = directory / name
        self.directory.mkdir()
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"
        self.url = f"http://{self.address}"
        self.process: Process | None = None

    def start(self, command: list[str | Path]) -> None:
        self.process = Process(self.directory.name, command, self.directory / "log")
        wait_for_port(self.port, self.process.exit_code)

    def cpu_seconds(self) -> float:
        assert self.process
        return cpu_seconds(self.process.pid)

    def stop(self) -> None:
        if self.process:
            self.process.stop()


class DockerRegistry(Server):
    def __init__(self, directory: Path, name: str, remote: str = "") -> None:
        super().__init__(directory, name)
        config = self.directory / "config.yml"
        proxy = f"proxy: {{remoteurl: '{remote}'}}\n" if remote else ""
        # An origin's access log is how its requests are counted.
        config.write_text(
            "version: 0.1\n"
            f"log: {{level: error, accesslog: {{disabled: {str(bool(remote)).lower()}}}}}\n"
            "storage:\n  cache: {blobdescriptor: inmemory}\n"
            f"  filesystem: {{rootdirectory: {self.directory / 'data'}}}\n"
            f"http: {{addr: '{self.address}'}}\n{proxy}"
        )
        self.start([BINARY, "serve", config])
        self._read = 0

    def traffic(self) -> tuple[int, float]:
        """Requests and MiB since the last call, those that only probe not among them."""
        with open(self.directory / "log", encoding="utf-8", errors="replace") as log:
            log.seek(self._read)
            found = _LINE.findall(log.read())
            self._read = log.tell()
        asked = [(method, int(size)) for method, path, _, size in found if path != "/v2/"]
        # What HEAD is answered with has no body, whatever the log says.
        return len(asked), sum(size for method, size in asked if method == "GET") / MIB


class Staithe(Server):
    def __init__(self, directory: Path, upstream: str) -> None:
        super().__init__(directory, "staithe")
        config = self.directory / "staithe.toml"
        config.write_text(
            toml(
                {
                    "listen": {
                        "registry": [self.address],
                        "control": str(self.directory / "control.sock"),
                    },
                    "cache": {"directory": str(self.directory / "cache")},
                    "freshness": {"tag_ttl": "1h"},
                    "registry": [{"name": REGISTRY, "upstream": [upstream], "default": True}],
                }
            )
        )
        self.start([binary("staithed"), "--config", config])


class Bench:
    def __init__(self, options: argparse.Namespace, scratch: Path, report: Report) -> None:
        self.options = options
        self.scratch = scratch
        self.report = report
        self.origin = DockerRegistry(scratch, "origin")
        self.clients = 0
        say("making the image")
        count, size = (4, 1) if options.quick else (20, 20)
        made = scratch / "layers"
        made.mkdir()
        layers = [
            noise(made, f"layer{number}", size * MIB, f"bench {number}") for number in range(count)
        ]
        image = Registry(self.origin.url).push_image("bench/image", "1", layers, OCI)
        self.digest = image.digest
        shutil.rmtree(made)
        self.mib = sum(layer.size for layer in layers) / MIB

    def stop(self) -> None:
        self.origin.stop()

    # ---- the clients: each gives what it took ---------------------------------------------------

    def skopeo(self, server: Server) -> tuple[float, float]:
        directory = self.fresh("skopeo")
        client = Skopeo(directory)
        watch = Watch()
        target = client.copy(f"{server.address}/{NAME}")
        took = watch.took()
        if client.checked(target) != self.digest:
            raise SystemExit("skopeo got another image")
        shutil.rmtree(directory)
        return took.seconds, took.cpu_seconds

    def ctr(self, server: Server) -> tuple[float, float]:
        directory = self.fresh("containerd")
        client = Containerd(directory)
        try:
            client.mirror(REGISTRY, server.url)
            reference = f"{REGISTRY}/{NAME}"
            before = cpu_seconds(client.process.pid)
            watch = Watch()
            client.ctr("images", "pull", "--hosts-dir", client.hosts, reference)
            took = watch.took()
            behind = cpu_seconds(client.process.pid) - before
            if client.digest(reference) != self.digest:
                raise SystemExit("ctr got another image")
        finally:
            client.stop()
            unmount_below(directory)
        shutil.rmtree(directory)
        return took.seconds, took.cpu_seconds + behind

    def fresh(self, name: str) -> Path:
        self.clients += 1
        return self.scratch / f"{name}{self.clients}"

    # ---- the measurement ------------------------------------------------------------------------

    def run(self) -> None:
        pulls: dict[str, Callable[[Server], tuple[float, float]]] = {
            "skopeo copy": self.skopeo,
            "ctr images pull": self.ctr,
        }
        if os.geteuid() != 0:
            say("without ctr: containerd needs root")
            del pulls["ctr images pull"]
        for name, pull in pulls.items():
            if not self.options.quick:
                pull(self.origin)  # The client and the layers come into the page cache.
            for number in range(self.options.runs):
                say(f"{name}, run {number + 1}")
                for state in ("cold", "warm"):
                    self.measure(f"{name}, {state}", "direct", pull, self.origin)
                for peer in ("staithe", "registry"):
                    self.through(name, peer, pull)

    def through(
        self, name: str, peer: str, pull: Callable[[Server], tuple[float, float]]
    ) -> None:
        directory = self.scratch / "run"
        directory.mkdir()
        make = {
            "staithe": lambda: Staithe(directory, self.origin.url),
            "registry": lambda: DockerRegistry(directory, "registry", self.origin.url),
        }
        server = make[peer]()
        try:
            for state in ("cold", "warm"):
                self.measure(f"{name}, {state}", peer, pull, server)
        finally:
            server.stop()
        shutil.rmtree(directory)

    def measure(
        self,
        row: str,
        peer: str,
        pull: Callable[[Server], tuple[float, float]],
        server: Server,
    ) -> None:
        settle(self.scratch)
        self.origin.traffic()
        before = server.cpu_seconds()
        seconds, client_cpu = pull(server)
        self.await_quiet(server)
        server_cpu = server.cpu_seconds() - before
        requests, mib = self.origin.traffic()
        add = self.report.add
        add(row, "s", peer, seconds, 2)
        add(row, "client CPU s", peer, client_cpu, 2)
        add(row, "server CPU s", peer, server_cpu, 2)
        add(row, "upstream requests", peer, requests)
        add(row, "upstream MiB", peer, mib)
        if self.options.quick and peer == "staithe":
            expected = self.mib if row.endswith("cold") else 0
            if abs(mib - expected) > 0.1:
                raise SystemExit(f"{row}: {mib:.1f} MiB came from the origin, not {expected:.1f}")

    def await_quiet(self, server: Server) -> None:
        """What goes on behind the client's back (second fetches, storing) has ended."""
        deadline = time.monotonic() + _QUIET_PATIENCE
        before = -1.0
        while time.monotonic() < deadline:
            now = server.cpu_seconds() + self.origin.cpu_seconds()
            if now == before:
                return
            before = now
            time.sleep(_QUIET)


if __name__ == "__main__":
    measure(__doc__, 3, ["direct", "staithe", "registry"], Bench)
