#!/usr/bin/python3
"""A listening socket that is passed to one daemon after the other, as systemd does it, where
systemd itself cannot be had: no client is refused, and no pull is lost (systemd_test.py has the
real one)."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import tempfile
import unittest
from pathlib import Path

import lab  # noqa: F401  where the other folders of tests are found
from origin import Origin
from pulls import Pulls
from staithed import binary, toml

REGISTRY = "origin.test"
FIRST_PASSED = 3
RESTARTS = 5
# Before it becomes the daemon, the shell says for whom the socket is meant.
_PASS = 'exec 3<&"$1"; shift; LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=registry exec "$@"'


class Activation(unittest.TestCase):
    def setUp(self) -> None:
        place = tempfile.TemporaryDirectory()
        self.addCleanup(place.cleanup)
        self.place = Path(place.name)
        self.origin = Origin()
        self.addCleanup(self.origin.close)
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
        self.addCleanup(self.listener.close)
        (self.place / "staithe.toml").write_text(toml({
            "listen": {"control": str(self.place / "control.sock")},
            "cache": {"directory": str(self.place / "cache"), "min_free": 0},
            "registry": [{"name": REGISTRY, "upstream": [self.origin.url], "identity": "nobody"}],
            "identity": {"nobody": {"kind": "anonymous"}},
        }))  # fmt: skip

    def start(self) -> subprocess.Popen[bytes]:
        passed = self.listener.fileno()
        with open(self.place / "log", "ab") as log:
            return subprocess.Popen(
                ["bash", "-c", _PASS, "bash", str(passed), binary("staithed"), "--config",
                 self.place / "staithe.toml"],
                pass_fds=[passed], stderr=log, stdout=log,
            )  # fmt: skip

    def test_restarts_under_load_lose_no_pull(self) -> None:
        daemon = self.start()
        try:
            port = self.listener.getsockname()[1]
            with Pulls(self.origin, REGISTRY, port, each=2) as pulls:
                for _ in range(RESTARTS):
                    pulls.wait_for(1)
                    daemon.send_signal(signal.SIGTERM)
                    self.assertEqual(daemon.wait(60), 0, (self.place / "log").read_text()[-2000:])
                    daemon = self.start()
                pulls.wait_for(1)
            print(f"{RESTARTS} restarts under load: {pulls.summary()}")
            self.assertEqual(pulls.failures, [])
            self.assertEqual(os.stat(f"/proc/{daemon.pid}/fd/{FIRST_PASSED}").st_ino,
                             os.fstat(self.listener.fileno()).st_ino)  # fmt: skip
        finally:
            daemon.terminate()
            daemon.wait(60)


if __name__ == "__main__":
    unittest.main()
