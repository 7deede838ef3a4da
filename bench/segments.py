#!/usr/bin/python3
"""Is a cold pull through Staithe better than one without, and what does it cost where it is not?

One run measures a direct pull and one through Staithe beside each other, against the rough origin
of the tests in a process of its own: a registry that sends its blobs to storage by a redirect, as
ACR does. Every pull through Staithe finds an empty cache.

1. Storage that limits each connection (40 MB/s) and is 20 ms away: `skopeo copy` of a large layer.
2. The same without limits, where Staithe can only be in the way; with curl too, which only reads.
3. A miss of 1 MiB: until its first byte.
4. A range of 1 MiB in the middle of the large layer: until its first byte, and its last.

A pull's data goes to the page cache of --directory. Clients, daemon and origin share the machine.
"""

from __future__ import annotations

import argparse
import hashlib
import http.client
import json
import multiprocessing
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from urllib.parse import urlsplit

_ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(_ROOT / "tests/e2e"))

from lab import MIB  # noqa: E402
from clients import Skopeo  # noqa: E402
from node import REGISTRY, Node  # noqa: E402
from origin import Image, digest_of, make_image  # noqa: E402
from rough_origin import RoughOrigin  # noqa: E402
from staithed import binary, toml  # noqa: E402

REPOSITORY = "bench"
SMALL = MIB
RANGE = MIB
LIMITED = "40 MB/s per connection, 20 ms"
UNLIMITED = "no limits"


class Origin:
    """The rough origin in another process, so that its work is not the clients'."""

    def __init__(self, large: Path, image: Image, smalls: int) -> None:
        ours, theirs = multiprocessing.Pipe()
        self._pipe = ours
        self._process = multiprocessing.Process(
            target=_serve, args=(theirs, large, image, smalls), daemon=True
        )
        self._process.start()
        self.url, self.small = ours.recv()

    def be(self, rate: float | None, latency: float) -> None:
        self._pipe.send((rate, latency))
        self._pipe.recv()

    def close(self) -> None:
        self._process.terminate()
        self._process.join()


def _serve(pipe: Connection, large: Path, image: Image, smalls: int) -> None:
    origin = RoughOrigin(redirects=True)
    origin.add(image)
    origin.add_blob(large, next(d for d, content in image.blobs.items() if content == b""))
    chance = random.Random(0)
    small = [origin.add_blob(chance.randbytes(SMALL)) for _ in range(smalls)]
    pipe.send((origin.url, small))
    while True:
        origin.rate, origin.latency = pipe.recv()
        pipe.send(None)


def make_large(path: Path, size: int) -> Image:
    """An image of one layer, which is in a file; its place among the blobs is empty."""
    chance, hasher = random.Random(size), hashlib.sha256()
    with open(path, "wb") as file:
        for _ in range(size // MIB):
            piece = chance.randbytes(MIB)
            hasher.update(piece)
            file.write(piece)
    digest = "sha256:" + hasher.hexdigest()
    image = make_image(REPOSITORY, [], 0)
    manifest = json.loads(image.manifest)
    media = "application/vnd.oci.image.layer.v1.tar"
    manifest["layers"] = [{"mediaType": media, "digest": digest, "size": size}]
    return Image(REPOSITORY, json.dumps(manifest).encode(), {**image.blobs, digest: b""})


class Bench:
    def __init__(self, options: argparse.Namespace, scratch: Path) -> None:
        self.options = options
        self.scratch = scratch
        self.size = options.size * MIB
        large = scratch / "large"
        self.image = make_large(large, self.size)
        self.layer = next(d for d, content in self.image.blobs.items() if content == b"")
        self.origin = Origin(large, self.image, 2 * options.misses)
        self.rows: list[tuple[str, str, dict[str, list[float]]]] = []
        self.nodes = 0
        # What is measured in one form only is measured in the usual one.
        self.counts: list[int | None] = [1, 4, 8] if self.has_segments() else [None]
        self.usual = 4 if self.has_segments() else None

    # ---- who is measured -----------------------------------------------------------------------

    def node(self, segments: int | None) -> Node:
        """With an empty cache."""
        self.nodes += 1
        node = Node(self.scratch / f"node{self.nodes}", self.origin)
        node.configured({"listen": {"registry": [node.address]}, "log": {"level": "warn"}})
        registry = node.config["registry"][0]
        registry["data_hosts"] = ["localhost"]
        if segments:
            registry["segments"] = segments
        node.start()
        return node

    def ended(self, node: Node) -> None:
        node.wait_until_stored(120)
        node.stop()
        shutil.rmtree(node.cache.parent)

    def skopeo(self, reference: str) -> float:
        skopeo = Skopeo(self.scratch / "skopeo")
        began = time.monotonic()
        target = skopeo.copy(reference)
        seconds = time.monotonic() - began
        if skopeo.checked(target) != digest_of(self.image.manifest):
            raise SystemExit("skopeo got something else")
        shutil.rmtree(self.scratch / "skopeo")
        return seconds

    def curl(self, url: str) -> float:
        began = time.monotonic()
        subprocess.run(["curl", "-sfL", "-o", "/dev/null", url], check=True)
        return time.monotonic() - began

    def direct(self) -> str:
        return f"{self.origin.url.removeprefix('http://')}/{REPOSITORY}:1"

    def through(self, node: Node) -> str:
        return f"{node.address}/{REGISTRY}/{REPOSITORY}:1"

    # ---- what is measured ----------------------------------------------------------------------

    def row(self, name: str, unit: str, of: dict[str, list[float]]) -> None:
        self.rows.append((name, unit, of))
        cells = ", ".join(f"{peer} {statistics.median(v):,.1f}" for peer, v in of.items())
        print(f"{name}, {unit}: {cells}", file=sys.stderr, flush=True)

    def pulls(self, where: str, segments: list[int | None]) -> None:
        rates: dict[str, list[float]] = {}
        cpu: dict[str, list[float]] = {}
        read: dict[str, list[float]] = {}
        for _ in range(self.options.runs):
            # All of them in each run, so that a busy minute is everybody's.
            add(rates, "direct", self.size / 1e6 / self.skopeo(self.direct()))
            add(read, "direct", self.size / 1e6 / self.curl(self.blob_url()))
            for count in segments:
                name = column(count)
                node = self.node(count)
                add(rates, name, self.size / 1e6 / self.skopeo(self.through(node)))
                add(cpu, name, cpu_seconds(node) / (self.size / 2**30))
                self.ended(node)
                node = self.node(count)
                add(read, name, self.size / 1e6 / self.curl(self.blob_url(node)))
                self.ended(node)
        size = f"{self.options.size} MiB"
        self.row(f"{where}: skopeo copy of {size}", "MB/s", rates)
        self.row(f"{where}: curl of {size}", "MB/s", read)
        self.row(f"{where}: the daemon's work for skopeo", "CPU s/GiB", cpu)

    def blob_url(self, node: Node | None = None, digest: str = "") -> str:
        begin = f"{node.url}/v2/{REGISTRY}" if node else f"{self.origin.url}/v2"
        return f"{begin}/{REPOSITORY}/blobs/{digest or self.layer}"

    def misses(self, where: str) -> None:
        node = self.node(self.usual)
        first: dict[str, list[float]] = {}
        last: dict[str, list[float]] = {}
        for number in range(self.options.misses):
            digest = self.origin.small[number]
            for name, url in (
                ("direct", self.blob_url(None, digest)),
                (column(self.usual), self.blob_url(node, digest)),
            ):
                began, ended = fetch(url, SMALL)
                add(first, name, 1000 * began)
                add(last, name, 1000 * ended)
            node.wait_until_stored()
        self.ended(node)
        self.row(f"{where}: first byte of a miss", "ms", first)
        self.row(f"{where}: all of a miss of 1 MiB", "ms", last)

    def ranges(self, where: str) -> None:
        first: dict[str, list[float]] = {}
        last: dict[str, list[float]] = {}
        begin = self.size // 2 + 12345
        for _ in range(self.options.runs):
            node = self.node(self.usual)
            for name, url in (
                ("direct", self.blob_url()),
                (column(self.usual), self.blob_url(node)),
            ):
                began, ended = fetch(url, RANGE, f"bytes={begin}-{begin + RANGE - 1}")
                add(first, name, 1000 * began)
                add(last, name, 1000 * ended)
            node.stop()
            shutil.rmtree(node.cache.parent)
        size = f"{self.options.size} MiB"
        self.row(f"{where}: first byte of 1 MiB in the middle of a cold {size}", "ms", first)
        self.row(f"{where}: all of that range", "ms", last)

    def has_segments(self) -> bool:
        """Whether this daemon knows the key."""
        directory = self.scratch / "probe"
        node = Node(directory, self.origin)
        node.config["registry"][0]["segments"] = 4
        node.config_file.write_text(toml(node.config))
        done = subprocess.run(
            [binary("staithed"), "--check", "--config", node.config_file],
            capture_output=True, check=False,
        )  # fmt: skip
        shutil.rmtree(directory)
        return done.returncode == 0

    def run(self) -> None:
        wanted: Callable[[str], bool] = lambda name: self.options.only in ("", name)
        for where, rate, latency in (
            (LIMITED, self.options.rate * 1e6, self.options.latency / 1000),
            (UNLIMITED, None, 0.0),
        ):
            self.origin.be(rate, latency)
            if wanted("pulls"):
                self.pulls(where, self.counts)
            if wanted("misses"):
                self.misses(where)
            if wanted("ranges"):
                self.ranges(where)

    def table(self) -> str:
        peers: list[str] = []
        for _, _, of in self.rows:
            peers += [peer for peer in of if peer not in peers]
        lines = [["measure", "unit", *peers]]
        for name, unit, of in self.rows:
            lines.append([name, unit, *(cell(of.get(peer)) for peer in peers)])
        widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
        text = []
        for number, line in enumerate(lines):
            cells = [
                word.ljust(width) if i < 2 else word.rjust(width)
                for i, (word, width) in enumerate(zip(line, widths, strict=True))
            ]
            text.append("| " + " | ".join(cells) + " |")
            if number == 0:
                rule = ["-" * (w + 1) + ("-" if i < 2 else ":") for i, w in enumerate(widths)]
                text.append("|" + "|".join(rule) + "|")
        return "\n".join(text)


def column(segments: int | None) -> str:
    if segments is None:
        return "staithe"
    return "1 segment" if segments == 1 else f"{segments} segments"


def add(to: dict[str, list[float]], name: str, value: float) -> None:
    to.setdefault(name, []).append(value)


def cell(values: list[float] | None) -> str:
    """The median, and how far the runs lie apart where that is more than a percent."""
    if not values:
        return ""
    median = statistics.median(values)
    decimals = 0 if median >= 100 else 1 if median >= 10 else 2
    spread = (max(values) - min(values)) / 2 / median if median else 0
    return f"{median:,.{decimals}f}" + (f" ±{100 * spread:.0f}%" if spread >= 0.01 else "")


def fetch(url: str, size: int, range_: str = "") -> tuple[float, float]:
    """Seconds until the first and the last byte, with connections of its own, as a new pull has."""
    began = time.monotonic()
    headers = {"Range": range_} if range_ else {}
    while True:
        parts = urlsplit(url)
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=300)
        target = parts.path + ("?" + parts.query if parts.query else "")
        connection.request("GET", target, headers=headers)
        response = connection.getresponse()
        if response.status != 307:
            break
        url = response.headers["Location"]
        connection.close()
    if response.status not in (200, 206):
        raise SystemExit(f"{url}: {response.status}")
    got = len(response.read(1))
    first = time.monotonic() - began
    got += len(response.read(size - 1))
    last = time.monotonic() - began
    connection.close()
    if got != size:
        raise SystemExit(f"{url}: {got} bytes")
    return first, last


def cpu_seconds(node: Node) -> float:
    fields = Path(f"/proc/{node.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--size", type=int, default=1024, help="MiB of the large layer")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--misses", type=int, default=20, help="of each place, for first bytes")
    parser.add_argument("--rate", type=float, default=40, help="MB/s of each connection")
    parser.add_argument("--latency", type=float, default=20, help="ms before each answer")
    parser.add_argument("--only", choices=["", "pulls", "misses", "ranges"], default="")
    parser.add_argument("--quick", action="store_true", help="64 MiB once: only that it works")
    parser.add_argument("--directory", default=os.environ.get("TMPDIR", "/tmp"))
    options = parser.parse_args()
    if options.quick:
        options.size, options.runs, options.misses = 64, 1, 3
    scratch = Path(tempfile.mkdtemp(prefix="staithe-", dir=options.directory))
    bench = None
    try:
        bench = Bench(options, scratch)
        bench.run()
        print(f"\n{options.size} MiB, medians of {options.runs} runs ({options.misses} misses)\n")
        print(bench.table())
    finally:
        if bench:
            bench.origin.close()
        shutil.rmtree(scratch, ignore_errors=True)


if __name__ == "__main__":
    main()
