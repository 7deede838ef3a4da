#!/usr/bin/python3
"""SIGTERM ends the daemon within drain_timeout, whatever its upstream does."""

from __future__ import annotations

import shutil
import time
import unittest

from disks import MIB
from node import Node
from origin import Origin, make_image
from points import fast_directory
from scenario import Clients


class End(unittest.TestCase):
    def test_a_client_of_a_silent_upstream_does_not_hold_it_up(self) -> None:
        home = fast_directory("staithe-end-")
        self.addCleanup(shutil.rmtree, home, ignore_errors=True)
        origin = Origin()
        self.addCleanup(origin.close)
        image = origin.add(make_image("image", [2 * MIB], 1))
        digest = max(image.blobs, key=lambda name: len(image.blobs[name]))
        self.addCleanup(origin.hold(digest, MIB))
        node = Node(home / "node", origin, max_size=64 * MIB).start()
        self.addCleanup(node.stop)
        took = []

        def stop_in_the_middle() -> None:
            while not any(fill["bytes"] >= MIB for fill in node.status()["fills"]):
                time.sleep(0.005)
            start = time.monotonic()
            node.stop_cleanly()
            took.append(time.monotonic() - start)

        clients = Clients()
        clients.run([lambda: node.pull(image, [digest])], stop_in_the_middle)
        clients.check()
        self.assertEqual(len(clients.broken), 1)
        self.assertLess(took[0], 10)  # drain_timeout is 1 s, and the machine may be busy


if __name__ == "__main__":
    unittest.main()
