#!/usr/bin/python3
"""What does TLS on Staithe's own listener cost, beside the same hit without, and beside nginx?

    ./dev bench tls_listener [--runs 3] [--json FILE]

Both serve the same bytes: staithed from its cache, by listen.registry and listen.tls, and nginx
from files, with sendfile, 2 workers, and its defaults for TLS; with one certificate, made for this
run. curl asks in all columns and lets the bodies go. CPU seconds are those of the server. Neither
resumes TLS sessions here: each new connection costs both a whole handshake.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from argparse import Namespace
from dataclasses import dataclass
from pathlib import Path

from measuring import MIB, ROOT, Report, cpu_seconds, measure, say, settle
from tls import NGINX, is_hit, make_blob, make_certificate, temporary_paths

sys.path[:0] = [str(ROOT / f"tests/{name}") for name in ("e2e", "images", "fake")]

from process import Process  # noqa: E402
from registry import free_port, wait_for_port  # noqa: E402
from staithed import binary, toml  # noqa: E402

GIB = 1024 * MIB
SMALL_BYTES = 16 * 1024
CLIENTS = 8
STORE_PATIENCE = 60


@dataclass
class Peer:
    name: str
    process: Process
    base: str  # "https://127.0.0.1:5443"


def cpu_of(process: Process) -> float:
    """With its workers'."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return sum(cpu_seconds(int(pid)) for pid in [str(process.pid), *children])


class Bench:
    def __init__(self, options: Namespace, scratch: Path, report: Report) -> None:
        self.options = options
        self.scratch = scratch
        self.report = report
        self.processes: list[Process] = []
        self.requests = 50 if options.quick else 4000  # of one client
        self.handshakes = 10 if options.quick else 300
        self.size = (4 if options.quick else 512) * MIB
        say("making the blobs")
        files = scratch / "files"
        files.mkdir()
        self.large = self._blob(files, self.size)
        self.small = [self._blob(files, SMALL_BYTES, number) for number in range(16)]
        self.key, self.certificate = scratch / "key.pem", scratch / "certificate.pem"
        make_certificate(self.key, self.certificate)
        nginx, plain, tls = self._nginx(files)
        staithed, plain_here, tls_here = self._staithed(plain)
        self.peers = [
            Peer("staithe", staithed, f"http://127.0.0.1:{plain_here}"),
            Peer("staithe TLS", staithed, f"https://127.0.0.1:{tls_here}"),
            Peer("nginx", nginx, f"http://127.0.0.1:{plain}"),
            Peer("nginx TLS", nginx, f"https://127.0.0.1:{tls}"),
        ]

    def stop(self) -> None:
        for process in self.processes:
            process.stop()

    @staticmethod
    def _blob(files: Path, size: int, seed: int = 0) -> str:
        path = files / "new"
        digest = make_blob(path, size, seed)
        path.rename(files / digest)
        return digest

    def _nginx(self, files: Path) -> tuple[Process, int, int]:
        plain, tls = free_port(), free_port()
        directory = self.scratch / "nginx"
        directory.mkdir()
        config = directory / "nginx.conf"
        config.write_text(
            f"daemon off;\nuser root;\nworker_processes 2;\npid {directory / 'nginx.pid'};\n"
            "error_log stderr error;\nevents { worker_connections 1024; }\nhttp {\n"
            "  access_log off;\n  sendfile on;\n  tcp_nopush on;\n"
            "  keepalive_requests 1000000;\n  open_file_cache max=100;\n"
            f"{temporary_paths(directory)}"
            f"  server {{\n    listen 127.0.0.1:{plain} reuseport;\n"
            f"    listen 127.0.0.1:{tls} ssl reuseport;\n"
            f"    ssl_certificate {self.certificate};\n    ssl_certificate_key {self.key};\n"
            "    location = /v2/ { return 200; }\n"
            f"    location /v2/bench/blobs/ {{\n      alias {files}/;\n"
            "      default_type application/octet-stream;\n    }\n  }\n}\n"
        )
        process = Process(
            "nginx", [NGINX, "-p", directory, "-e", "stderr", "-c", config], directory / "log"
        )
        self.processes.append(process)
        wait_for_port(plain, process.exit_code)
        return process, plain, tls

    def _staithed(self, origin: int) -> tuple[Process, int, int]:
        plain, tls = free_port(), free_port()
        directory = self.scratch / "staithe"
        directory.mkdir()
        pem = directory / "localhost.pem"
        pem.write_text(self.key.read_text() + self.certificate.read_text())
        pem.chmod(0o600)
        config = directory / "staithe.toml"
        config.write_text(
            toml(
                {
                    "listen": {
                        "registry": [f"127.0.0.1:{plain}"],
                        "tls": [f"127.0.0.1:{tls}"],
                        "tls_file": str(pem),
                        "control": str(directory / "control.sock"),
                    },
                    "cache": {"directory": str(directory / "cache")},
                    "registry": [
                        {
                            "name": "bench.local",
                            "upstream": [f"http://127.0.0.1:{origin}"],
                            "default": True,
                        }
                    ],
                }
            )
        )
        process = Process("staithed", [binary("staithed"), "--config", config], directory / "log")
        self.processes.append(process)
        wait_for_port(plain, process.exit_code)
        say("filling the cache")
        for digest in [self.large, *self.small]:
            url = f"http://127.0.0.1:{plain}/v2/bench/blobs/{digest}"
            subprocess.run(["curl", "-sf", "-o", "/dev/null", url], check=True)
            deadline = time.monotonic() + STORE_PATIENCE
            while not is_hit(url):
                process.must_run()
                if time.monotonic() > deadline:
                    raise SystemExit(f"staithe has not stored a blob:\n{process.tail(20)}")
                time.sleep(0.02)
        return process, plain, tls

    def _ask(
        self, peer: Peer, clients: int, digests: list[str], *words: str
    ) -> tuple[float, float]:
        """All clients ask for these one after the other; seconds and the server's CPU seconds."""
        script = self.scratch / "urls"
        script.write_text(
            "".join(
                f'url = "{peer.base}/v2/bench/blobs/{digest}"\noutput = "/dev/null"\n'
                for digest in digests
            )
        )
        command = ["curl", "-sf", "--cacert", str(self.certificate), "-K", str(script), *words,
                   "-w", "%{size_download}\\n"]  # fmt: skip
        before = cpu_of(peer.process)
        began = time.monotonic()
        asking = [
            subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(clients)
        ]
        sizes = [int(size) for client in asking for size in client.communicate()[0].split()]
        seconds = time.monotonic() - began
        cpu = cpu_of(peer.process) - before
        wanted = [self.size if digest == self.large else SMALL_BYTES for digest in digests]
        if any(client.returncode for client in asking) or sorted(sizes) != sorted(wanted * clients):
            raise SystemExit(f"{peer.name}: a wrong answer\n{peer.process.tail(20)}")
        return seconds, cpu

    def _check(self, peer: Peer) -> None:
        """Its bytes are the right ones."""
        for digest in (self.large, self.small[0]):
            read = subprocess.run(
                f"curl -sf --cacert '{self.certificate}' '{peer.base}/v2/bench/blobs/{digest}'"
                " | sha256sum",
                shell=True, capture_output=True, text=True, check=True,
            )  # fmt: skip
            if f"sha256:{read.stdout.split()[0]}" != digest:
                raise SystemExit(f"{peer.name}: wrong bytes for {digest}")

    def run(self) -> None:
        for peer in self.peers:
            self._check(peer)
        small = [self.small[number % len(self.small)] for number in range(self.requests)]
        for number in range(self.options.runs):
            say(f"run {number + 1}")
            for peer in self.peers:
                settle(self.scratch)
                for clients in (1, CLIENTS):
                    row = f"{self.size // MIB} MiB blob, {_clients(clients)}"
                    seconds, cpu = self._ask(peer, clients, [self.large])
                    came = clients * self.size
                    self.report.add(row, "MiB/s", peer.name, came / MIB / seconds)
                    self.report.add(row, "CPU s/GiB", peer.name, cpu / (came / GIB), 3)
                for clients in (1, CLIENTS):
                    row = f"{SMALL_BYTES // 1024} KiB blobs, {_clients(clients)}"
                    self._requests(peer, clients, small, row)
                self._requests(
                    peer, CLIENTS, small[: self.handshakes],
                    f"the same, {_clients(CLIENTS)}, each time a new connection",
                    "-H", "Connection: close",
                )  # fmt: skip

    def _requests(
        self, peer: Peer, clients: int, digests: list[str], row: str, *words: str
    ) -> None:
        seconds, cpu = self._ask(peer, clients, digests, *words)
        count = clients * len(digests)
        self.report.add(row, "requests/s", peer.name, count / seconds)
        self.report.add(row, "CPU us/request", peer.name, 1e6 * cpu / count, 1)


def _clients(number: int) -> str:
    return "1 client" if number == 1 else f"{number} clients"


if __name__ == "__main__":
    os.umask(0o022)
    measure(__doc__, 3, ["staithe", "staithe TLS", "nginx", "nginx TLS"], Bench)
