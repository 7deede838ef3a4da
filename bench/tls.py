#!/usr/bin/python3
"""What does TLS to the upstream cost, beside what curl and openssl do with the same endpoint?

The endpoint is nginx with one large blob and a certificate made for this run. curl, `openssl
s_client` and `openssl s_time` read it directly and let it go; a curl without TLS reads it through
Staithe, whose cache is empty and which verifies, hashes and stores it besides. CPU seconds are
those of the program that decrypts: staithed's in its column.
"""

from __future__ import annotations

import hashlib
import random
import shutil
import subprocess
import sys
import time
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

from measuring import MIB, ROOT, Report, Watch, cpu_seconds, measure, say, settle

sys.path[:0] = [str(ROOT / f"tests/{name}") for name in ("e2e", "images", "fake")]

from process import Process  # noqa: E402
from registry import free_port, wait_for_port  # noqa: E402
from staithed import binary, toml  # noqa: E402

NGINX = "/usr/sbin/nginx"
S_TIME_SECONDS = 2
STORE_PATIENCE = 60
GIB = 1024 * MIB


class Endpoint:
    """nginx as a registry of one blob, over TLS."""

    def __init__(self, directory: Path, size: int) -> None:
        directory.mkdir()
        self.port = free_port()
        self.certificate = directory / "certificate.pem"
        self.size = size
        blob = directory / "blob"
        self.digest = make_blob(blob, size)
        self.target = f"/v2/bench/blobs/{self.digest}"
        key = directory / "key.pem"
        make_certificate(key, self.certificate)
        temporary = temporary_paths(directory)
        config = directory / "nginx.conf"
        config.write_text(
            f"daemon off;\nuser root;\nworker_processes 2;\npid {directory / 'nginx.pid'};\n"
            "error_log stderr error;\nevents { worker_connections 1024; }\nhttp {\n"
            f"  access_log off;\n  sendfile on;\n  tcp_nopush on;\n{temporary}"
            f"  server {{\n    listen 127.0.0.1:{self.port} ssl;\n"
            f"    ssl_certificate {self.certificate};\n    ssl_certificate_key {key};\n"
            "    location = /v2/ { return 200; }\n"
            f"    location = {self.target} {{\n      alias {blob};\n"
            f"      default_type application/octet-stream;\n"
            f"      add_header Docker-Content-Digest {self.digest};\n    }}\n  }}\n}}\n"
        )
        self.process = Process(
            "nginx", [NGINX, "-p", directory, "-e", "stderr", "-c", config], directory / "log"
        )
        wait_for_port(self.port, self.process.exit_code)


def make_blob(path: Path, size: int, seed: int = 0) -> str:
    chance, hasher = random.Random(size + seed), hashlib.sha256()
    with open(path, "wb") as file:
        for at in range(0, size, MIB):
            piece = chance.randbytes(min(MIB, size - at))
            hasher.update(piece)
            file.write(piece)
    return f"sha256:{hasher.hexdigest()}"


def make_certificate(key: Path, certificate: Path) -> None:
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
         "-nodes", "-days", "2", "-subj", "/CN=bench", "-addext", "subjectAltName=IP:127.0.0.1",
         "-keyout", key, "-out", certificate],
        check=True, capture_output=True,
    )  # fmt: skip


def temporary_paths(directory: Path) -> str:
    """Where nginx may write, for its http section."""
    kinds = ("client_body", "fastcgi", "uwsgi", "scgi", "proxy")
    return "".join(f"  {kind}_temp_path {directory / kind};\n" for kind in kinds)


class Bench:
    def __init__(self, options: Namespace, scratch: Path, report: Report) -> None:
        self.options = options
        self.scratch = scratch
        self.report = report
        say("making the blob")
        self.endpoint = Endpoint(scratch / "endpoint", (16 if options.quick else 1024) * MIB)
        self.url = f"https://127.0.0.1:{self.endpoint.port}{self.endpoint.target}"

    def stop(self) -> None:
        self.endpoint.process.stop()

    # Each gives bytes, seconds and CPU seconds.

    def curl(self) -> tuple[int, float, float]:
        watch = Watch()
        came = _curl("--cacert", str(self.endpoint.certificate), self.url)
        took = watch.took()
        return came, took.seconds, took.cpu_seconds

    def s_client(self) -> tuple[int, float, float]:
        end = self.endpoint
        request = f"GET {end.target} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"
        watch = Watch()
        subprocess.run(
            ["openssl", "s_client", "-quiet", "-verify_quiet", "-verify_return_error", "-connect",
             f"127.0.0.1:{end.port}", "-CAfile", end.certificate],
            input=request.encode(), check=True,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        took = watch.took()
        return end.size, took.seconds, took.cpu_seconds

    def s_time(self) -> tuple[int, float, float]:
        """Reads it again and again for so long, each time over a new connection."""
        end = self.endpoint
        watch = Watch()
        done = subprocess.run(
            ["openssl", "s_time", "-connect", f"127.0.0.1:{end.port}", "-CAfile", end.certificate,
             "-www", end.target, "-new", "-time", str(S_TIME_SECONDS)],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        took = watch.took()
        # "5 connections in 3 real seconds, 1073742105 bytes read per connection"
        line = next(line for line in done.stdout.splitlines() if "real seconds" in line)
        words = line.split()
        return int(words[0]) * int(words[6]), took.seconds, took.cpu_seconds

    def staithe(self) -> tuple[int, float, float]:
        directory = self.scratch / "staithe"
        directory.mkdir()
        port = free_port()
        registry = {
            "name": "bench.local",
            "upstream": [f"https://127.0.0.1:{self.endpoint.port}"],
            "default": True,
            "ca_file": str(self.endpoint.certificate),
        }
        config = directory / "staithe.toml"
        config.write_text(
            toml(
                {
                    "listen": {
                        "registry": [f"127.0.0.1:{port}"],
                        "control": str(directory / "control.sock"),
                    },
                    "cache": {"directory": str(directory / "cache")},
                    "registry": [registry],
                }
            )
        )
        process = Process("staithed", [binary("staithed"), "--config", config], directory / "log")
        try:
            wait_for_port(port, process.exit_code)
            url = f"http://127.0.0.1:{port}{self.endpoint.target}"
            before = cpu_seconds(process.pid)
            watch = Watch()
            came = _curl(url)
            took = watch.took()
            # What is served before it is on disk is stored behind the client's back.
            deadline = time.monotonic() + STORE_PATIENCE
            while not is_hit(url):
                process.must_run()
                if time.monotonic() > deadline:
                    raise SystemExit(f"staithe has not stored the blob:\n{process.tail(20)}")
                time.sleep(0.05)
            cpu = cpu_seconds(process.pid) - before
        finally:
            process.stop()
        shutil.rmtree(directory)
        return came, took.seconds, cpu

    def run(self) -> None:
        columns: dict[str, Callable[[], tuple[int, float, float]]] = {
            "curl": self.curl,
            "s_client": self.s_client,
            "s_time": self.s_time,
            "staithe": self.staithe,
        }
        row = f"{self.endpoint.size // MIB} MiB over TLS"
        self.curl()  # The file comes into the page cache.
        for number in range(self.options.runs):
            say(f"run {number + 1}")
            for name, read in columns.items():
                settle(self.scratch)
                came, seconds, cpu = read()
                if name != "s_time" and came != self.endpoint.size:
                    raise SystemExit(f"{name}: {came} bytes came, not {self.endpoint.size}")
                self.report.add(row, "MiB/s", name, came / MIB / seconds)
                self.report.add(row, "CPU s/GiB", name, cpu / (came / GIB), 3)


def is_hit(url: str) -> bool:
    head = subprocess.run(["curl", "-sfI", url], capture_output=True, text=True, check=True)
    return "cache-status: staithe; hit" in head.stdout.lower()


def _curl(*words: str) -> int:
    done = subprocess.run(
        ["curl", "-sf", "-o", "/dev/null", "-w", "%{size_download}", *words],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return int(done.stdout)


if __name__ == "__main__":
    measure(__doc__, 5, ["curl", "s_client", "s_time", "staithe"], Bench)
