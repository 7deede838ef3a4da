#!/usr/bin/python3
"""A machine on the same network, and a host that routes loopback addresses (CVE-2020-8558).

Two network namespaces stand for the two machines, a pair of virtual interfaces for the cable.
"""

from __future__ import annotations

import json
import subprocess
import time
import unittest
from pathlib import Path
from tempfile import TemporaryDirectory

from lab import needs_root
from node import Node
from origin import Origin
from process import Process
from registry import free_port
from staithed import binary

# Connects from the other machine to our 127.0.0.1; prints "connected", and what it was told.
CLIENT = """
import socket, sys
client = socket.create_connection(("127.0.0.1", int(sys.argv[1])), timeout=20)
print("connected from", client.getsockname()[0])
try:
    client.sendall(b"GET /healthz HTTP/1.1\\r\\nHost: localhost\\r\\n\\r\\n")
    print("told", client.recv(4096))
except ConnectionError:
    print("told", b"")
"""


@needs_root
class Neighbour(unittest.TestCase):
    def setUp(self) -> None:
        directory = TemporaryDirectory(prefix="staithe-")
        self.addCleanup(directory.cleanup)
        self.place = Path(directory.name)
        self.ours = self.network("ours")
        self.theirs = self.network("theirs")
        self.run_in(self.ours, "ip", "link", "set", "lo", "up")
        self.run_in(self.ours, "ip", "link", "add", "name", "cable0", "type", "veth",
                    "peer", "name", "cable1", "netns", str(self.theirs.pid))  # fmt: skip
        for network, name, address in (
            (self.ours, "cable0", "10.77.0.1/24"),
            (self.theirs, "cable1", "10.77.0.2/24"),
        ):
            self.run_in(network, "ip", "addr", "add", address, "dev", name)
            self.run_in(network, "ip", "link", "set", name, "up")
            self.run_in(network, "sh", "-c",
                        f"echo 1 > /proc/sys/net/ipv4/conf/{name}/route_localnet")  # fmt: skip
        # Its own lo is down, so that 127.0.0.1 is somebody else: us.
        self.run_in(self.theirs, "ip", "route", "add", "127.0.0.1/32", "via", "10.77.0.1",
                    "dev", "cable1", "src", "10.77.0.2")  # fmt: skip
        self.origin = Origin()
        self.addCleanup(self.origin.close)
        self.node = Node(self.place / "node", self.origin)
        self.addCleanup(self.node.stop)
        self.node.run_by = self.inside(self.ours)
        self.port = free_port()
        self.node.config["listen"]["registry"].append(f"127.0.0.1:{self.port}")

    def network(self, name: str) -> Process:
        """A network of its own, which is there for as long as the process is."""
        command = ["unshare", "--net", "sh", "-c", "echo ready; exec sleep 600"]
        holder = Process(name, command, self.place / f"{name}.log", stdout=subprocess.PIPE)
        self.addCleanup(holder.stop)
        self.assertEqual(holder.stdout.readline(), b"ready\n")
        return holder

    @staticmethod
    def inside(network: Process) -> list[str | Path]:
        return ["nsenter", f"--net=/proc/{network.pid}/ns/net"]

    def run_in(self, network: Process, *command: str) -> str:
        done = subprocess.run([*self.inside(network), *command], capture_output=True, text=True,
                              timeout=60, check=False)  # fmt: skip
        self.assertEqual(done.returncode, 0, f"{command}: {done.stderr}")
        return done.stdout

    def wait_for_log(self, text: str) -> None:
        deadline = time.monotonic() + 10
        while text not in self.node.log.read_text():
            self.assertLess(time.monotonic(), deadline, f"{text!r} is not logged")
            time.sleep(0.02)

    def test_it_comes_to_the_port_and_is_not_served(self) -> None:
        self.node.start()
        client = ("/usr/bin/python3", "-c", CLIENT, str(self.port))
        self.assertIn("told b'HTTP/1.1 200", self.run_in(self.ours, *client))
        told = self.run_in(self.theirs, *client)
        self.assertEqual(told, "connected from 10.77.0.2\ntold b''\n")
        self.assertEqual(self.node.status()["connections"]["refused"]["address"], 1)
        self.wait_for_log("a connection from another machine or container was refused")
        metrics = self.node.raw_control("GET", "/metrics")[1].decode()
        self.assertIn('staithe_denied_total{reason="address"} 1\n', metrics)

    def test_the_daemon_and_the_doctor_say_what_is_open_and_how_to_close_it(self) -> None:
        self.node.start()
        self.wait_for_log(
            "this host takes packets for loopback addresses from outside interfaces=cable0 remedy="
        )
        doctor = [*self.inside(self.ours), binary("staithe"), "--socket", self.node.socket, "doctor",
                  "--json"]  # fmt: skip
        done = subprocess.run(doctor, capture_output=True, text=True, timeout=60, check=False)
        steps = [json.loads(line) for line in done.stdout.splitlines()]
        (step,) = [step for step in steps if step.get("step") == "loopback"]
        self.assertEqual((step["subject"], step["state"]), ("cable0", "warning"))
        self.assertIn("route_localnet=0", step["mend"])


if __name__ == "__main__":
    unittest.main()
