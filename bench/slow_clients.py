#!/usr/bin/python3
"""10,000 slow connections by one user: what another user's hits take beside them, and their cost.

    ./dev bench slow_clients [--connections 10000] [--kind mixed|heads|readers|idle] [--json FILE]

Needs root, because there have to be two users. A flood of one user holds as many connections as
it is let: heads that drip a byte every two seconds, clients that asked for a layer and do not read
it, and clients that have been answered once and ask no more; a third of each, or one kind alone.
What is ended or refused comes again, as `Retry-After` says. Another user measures hits of a
manifest, on a connection that it keeps and on new ones: alone, beside the flood, and after it.
Twice: with the limits as shipped, of which `connections_per_user` turns most of the flood away, and
with limits that let all of it in, which shows what each connection costs.

The daemon is the staithed of build/release (or of STAITHE_BIN_DIR). All share the machine; the
flood is one Python process, and its processor time is taken from the others.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import resource
import select
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests/e2e"))

from node import Node
from origin import Origin, make_image

FLOODER, OTHER = 54321, 54322
KINDS = ("heads", "readers", "idle")
LAYER_BYTES = 4 << 20
DRIP_SECONDS = 2.0
RETRY_SECONDS = 5.0
DRIP = b"GET /v2/ HTTP/1.1\r\nHost: localhost\r\nX-Long: " + b"y" * 4096
ASK = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
Address = tuple[str, int]


def raise_descriptors() -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


# ---- the flood, a process of its own ------------------------------------------------------------


class Slow:
    """One connection of the flood, now or soon."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.socket: socket.socket | None = None
        self.at = 0  # of DRIP
        self.again = 0.0


class Flood:
    """As many connections as it gets, each opened again when it has ended."""

    def __init__(self, address: Address, path: str, kinds: list[str]) -> None:
        self._address = address
        self._ask_layer = f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
        self._all = [Slow(kind) for kind in kinds]
        self._by_number: dict[int, Slow] = {}
        self._poll = select.epoll()
        self._next_drip = 0.0

    def run(self) -> None:
        """Until stdin ends. Says once that every connection has been tried."""
        tried = False
        while not select.select([sys.stdin], [], [], 0)[0]:
            now = time.monotonic()
            begun = 0
            for one in self._all:
                # Some at a time, so that those it has are looked after meanwhile.
                if not one.socket and one.again <= now and begun < 200:
                    self._begin(one)
                    begun += 1
            if not tried and all(one.socket or one.again for one in self._all):
                tried = True
                print("tried", flush=True)
            for number, _ in self._poll.poll(0.0 if begun == 200 else 0.05, 1000):
                self._hear(self._by_number[number])
            if now >= self._next_drip:
                self._next_drip = now + DRIP_SECONDS
                self._drip()

    def _begin(self, one: Slow) -> None:
        client = socket.socket()
        client.setblocking(False)
        client.connect_ex(self._address)
        one.socket, one.at = client, 0
        self._by_number[client.fileno()] = one
        # Who does not read wants to know of the end alone.
        wanted = select.EPOLLRDHUP if one.kind == "readers" else select.EPOLLIN
        self._poll.register(client.fileno(), wanted)
        try:
            if one.kind != "heads":
                client.send(ASK if one.kind == "idle" else self._ask_layer)
            else:
                client.send(DRIP[:20])
                one.at = 20
        except OSError:
            self._end(one)

    def _hear(self, one: Slow) -> None:
        assert one.socket
        try:
            heard = one.socket.recv(4096)
        except BlockingIOError:
            return
        except OSError:
            heard = b""
        # The answer of an idle one is the only thing that is worth staying for; a reader hears
        # nothing but its end.
        if one.kind != "idle" or not heard.startswith(b"HTTP/1.1 200"):
            self._end(one)

    def _drip(self) -> None:
        for one in self._all:
            if one.kind == "heads" and one.socket:
                try:
                    one.socket.send(DRIP[one.at : one.at + 1])
                    one.at += 1
                except OSError:
                    self._end(one)

    def _end(self, one: Slow) -> None:
        if one.socket:
            self._poll.unregister(one.socket.fileno())
            self._by_number.pop(one.socket.fileno(), None)
            one.socket.close()
            one.socket = None
        one.again = time.monotonic() + RETRY_SECONDS


def flood(port: int, path: str, kind: str, connections: int) -> None:
    raise_descriptors()
    kinds = list(KINDS) if kind == "mixed" else [kind]
    Flood(("127.0.0.1", port), path, [kinds[n % len(kinds)] for n in range(connections)]).run()


# ---- the other user, a process of its own -------------------------------------------------------


@dataclass
class Measured:
    kept_p50_us: float
    kept_p99_us: float
    kept_per_second: float
    new_p50_us: float
    new_p99_us: float


def hit(connection: http.client.HTTPConnection, path: str) -> None:
    connection.request("GET", path)
    response = connection.getresponse()
    body = response.read()
    if response.status != 200 or not body:
        raise RuntimeError(f"{response.status} {body!r}")


def measure(port: int, path: str, hits: int) -> Measured:
    kept = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    for _ in range(200):
        hit(kept, path)
    on_kept = []
    began = time.perf_counter()
    for _ in range(hits):
        at = time.perf_counter()
        hit(kept, path)
        on_kept.append((time.perf_counter() - at) * 1e6)
    seconds = time.perf_counter() - began
    kept.close()
    on_new = []
    for _ in range(hits // 5):
        at = time.perf_counter()
        new = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        hit(new, path)
        on_new.append((time.perf_counter() - at) * 1e6)
        new.close()
    on_kept.sort()
    on_new.sort()

    def of(values: list[float], hundredth: int) -> float:
        return round(values[len(values) * hundredth // 100], 1)

    return Measured(
        of(on_kept, 50), of(on_kept, 99), round(hits / seconds), of(on_new, 50), of(on_new, 99)
    )


# ---- what is run ---------------------------------------------------------------------------------


@dataclass
class Row:
    when: str
    measured: Measured
    resident_kib: int
    open: int
    refused: int
    ended: int  # for not keeping a deadline
    daemon_cores: float  # of processor time while it was measured


class Bench:
    def __init__(self, node: Node, manifest: str, layer: str, asked: argparse.Namespace) -> None:
        self._node = node
        self._manifest = manifest
        self._layer = layer
        self._asked = asked
        self.rows: list[Row] = []

    def run(self, name: str, **limits: int) -> None:
        self._node.config["limits"] = limits
        self._node.start()
        try:
            self._node.pull(self._asked.image)
            self._row(f"{name}: alone")
            with self._flood():
                self._row(f"{name}: beside the flood")
            self._until_gone()
            self._row(f"{name}: after it")
        finally:
            self._node.stop()

    @contextlib.contextmanager
    def _flood(self):
        words = ["--flood", self._layer, "--kind", self._asked.kind]
        words += ["--connections", str(self._asked.connections), "--port", str(self._node.port)]
        child = subprocess.Popen(
            [sys.executable, __file__, *words], user=FLOODER, group=FLOODER, extra_groups=[],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd="/",
        )  # fmt: skip
        try:
            if child.stdout.readline() != "tried\n":
                raise RuntimeError("the flood has ended by itself")
            # Until each kind has met its deadline once, so that all of it is going on.
            time.sleep(12)
            yield
        finally:
            child.communicate("")

    def _row(self, when: str) -> None:
        before, began = self._node.status()["connections"], time.monotonic()
        cpu = self._cpu_seconds()
        words = ["--measure", self._manifest, "--port", str(self._node.port)]
        done = subprocess.run(
            [sys.executable, __file__, *words, "--hits", str(self._asked.hits)], user=OTHER,
            group=OTHER, extra_groups=[], capture_output=True, text=True, check=True, cwd="/",
        )  # fmt: skip
        cores = (self._cpu_seconds() - cpu) / (time.monotonic() - began)
        figures = self._node.status()["connections"]
        row = Row(
            when=when,
            measured=Measured(**json.loads(done.stdout)),
            resident_kib=self._resident_kib(),
            open=figures["open"],
            refused=sum(figures["refused"].values()),
            ended=sum(figures["ended"].values()) - sum(before["ended"].values()),
            daemon_cores=round(cores, 2),
        )
        self.rows.append(row)
        show(row)

    def _until_gone(self) -> None:
        deadline = time.monotonic() + 60
        while self._node.status()["connections"]["open"] > 0:
            if time.monotonic() > deadline:
                raise RuntimeError("connections of the flood are still open")
            time.sleep(0.05)

    def _resident_kib(self) -> int:
        text = Path(f"/proc/{self._node.process.pid}/status").read_text()
        return next(int(line.split()[1]) for line in text.splitlines() if line.startswith("VmRSS:"))

    def _cpu_seconds(self) -> float:
        fields = Path(f"/proc/{self._node.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


COLUMNS = (
    f"{'':36} {'kept connection, us':>19} {'hits':>7} {'new connection, us':>19} {'daemon':>7} "
    f"{'RSS':>9} {'':>6} {'':>8}\n"
    f"{'':36} {'p50':>9} {'p99':>9} {'per s':>7} {'p50':>9} {'p99':>9} {'cores':>7} "
    f"{'KiB':>9} {'open':>6} {'refused':>8}"
)


def show(row: Row) -> None:
    m = row.measured
    print(
        f"{row.when:36} {m.kept_p50_us:9.0f} {m.kept_p99_us:9.0f} {m.kept_per_second:7.0f} "
        f"{m.new_p50_us:9.0f} {m.new_p99_us:9.0f} {row.daemon_cores:7.2f} {row.resident_kib:9} "
        f"{row.open:6} {row.refused:8}",
        flush=True,
    )


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--connections", type=int, default=10_000)
    options.add_argument("--hits", type=int, default=5_000)
    options.add_argument("--kind", choices=("mixed", *KINDS), default="mixed")
    options.add_argument("--json", type=Path)
    options.add_argument("--flood", metavar="PATH", help=argparse.SUPPRESS)
    options.add_argument("--measure", metavar="PATH", help=argparse.SUPPRESS)
    options.add_argument("--port", type=int, help=argparse.SUPPRESS)
    asked = options.parse_args()
    if asked.flood:
        flood(asked.port, asked.flood, asked.kind, asked.connections)
        return
    if asked.measure:
        print(json.dumps(asdict(measure(asked.port, asked.measure, asked.hits))))
        return
    if os.geteuid() != 0:
        raise SystemExit("slow_clients needs root: the flood and who is measured are two users")
    raise_descriptors()
    with tempfile.TemporaryDirectory() as directory:
        origin = Origin()
        asked.image = make_image("app", [LAYER_BYTES], seed=1)
        origin.add(asked.image)
        node = Node(Path(directory) / "node", origin)
        node.config["listen"]["registry"].append(node.address)
        node.config["log"] = {"level": "info", "format": "text"}
        prefix = "/v2/origin.test/app"
        layer = f"{prefix}/blobs/{list(asked.image.blobs)[1]}"
        bench = Bench(node, f"{prefix}/manifests/{asked.image.digest}", layer, asked)
        try:
            print(COLUMNS)
            bench.run("as shipped")
            most = asked.connections + 100
            bench.run("limits raised", connections=most, connections_per_user=most)
        finally:
            origin.close()
    alone, beside = bench.rows[3], bench.rows[4]
    each = (beside.resident_kib - alone.resident_kib) * 1024 / max(1, beside.open)
    print(f"RSS per slow connection: {each:.0f} bytes")
    if asked.json:
        rows = [asdict(row) for row in bench.rows]
        found = {"rows": rows, "bytes_each": round(each)}
        asked.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
