#!/usr/bin/python3
"""What idle clients cost: memory for each, and what another client's hit takes beside them.

    /usr/bin/python3 bench/idle_clients.py [--connections 10000] [--hits 3000] [--kind tcp|unix]

Starts the staithed of build/release (or of STAITHE_BIN_DIR) over a directory of its own. Every
connection has asked once and been answered, as a client's that keeps it for its next request.
"""

from __future__ import annotations

import argparse
import http.client
import resource
import socket
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests/e2e"))

from node import Node
from origin import Origin, make_image

ASK = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"


def resident_kib(pid: int) -> int:
    text = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) for line in text.splitlines() if line.startswith("VmRSS:"))


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def connect(address: tuple[str, int] | str) -> socket.socket:
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
    client = socket.socket(family)
    client.settimeout(30)
    client.connect(address)
    return client


def latencies(client: socket.socket, path: str, hits: int) -> list[float]:
    """Microseconds of each hit, sorted."""
    connection = http.client.HTTPConnection("localhost")
    connection.sock = client
    taken = []
    for _ in range(hits):
        began = time.perf_counter()
        connection.request("GET", path)
        response = connection.getresponse()
        body = response.read()
        taken.append((time.perf_counter() - began) * 1e6)
        assert response.status == 200 and body
    return sorted(taken)


def show(when: str, taken: list[float], resident: int) -> None:
    p50, p99 = taken[len(taken) // 2], taken[len(taken) * 99 // 100]
    print(f"{when:32} hit p50 {p50:7.0f} us  p99 {p99:7.0f} us   RSS {resident:8} KiB", flush=True)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--connections", type=int, default=10_000)
    options.add_argument("--hits", type=int, default=3_000)
    options.add_argument("--kind", choices=("tcp", "unix"), default="tcp")
    asked = options.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

    with tempfile.TemporaryDirectory() as directory:
        origin = Origin()
        image = make_image("app", [1000], seed=1)
        origin.add(image)
        node = Node(Path(directory) / "node", origin)
        port = free_port()
        node.config["listen"]["registry"].append(f"127.0.0.1:{port}")
        most = asked.connections + 100
        node.config["limits"] = {"connections": most, "connections_per_user": most}
        node.config["log"] = {"level": "info", "format": "text"}
        node.start()
        try:
            address = ("127.0.0.1", port) if asked.kind == "tcp" else str(node.registry_socket)
            node.pull(image)
            path = f"/v2/origin.test/app/manifests/{image.digest}"
            busy = connect(address)
            latencies(busy, path, 500)
            before = latencies(busy, path, asked.hits)
            alone = resident_kib(node.process.pid)
            show("alone", before, alone)
            idle = []
            for _ in range(asked.connections):
                client = connect(address)
                client.sendall(ASK)
                assert client.recv(4096).startswith(b"HTTP/1.1 200")
                idle.append(client)
            crowded = resident_kib(node.process.pid)
            during = latencies(busy, path, asked.hits)
            show(f"beside {len(idle)} idle clients", during, crowded)
            print(f"RSS per idle connection: {(crowded - alone) * 1024 / len(idle):.0f} bytes")
            for client in idle:
                client.close()
            after = latencies(busy, path, asked.hits)
            show("after they have left", after, resident_kib(node.process.pid))
        finally:
            node.stop()
            origin.close()


if __name__ == "__main__":
    main()
