#!/usr/bin/python3
"""A short soak: all of ./dev soak works, and a third of a minute of storms finds nothing wrong."""

from __future__ import annotations

import os
import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import soak

SEED = int(os.environ.get("STAITHE_SEED", 1))
SECONDS = 16


class Soak(unittest.TestCase):
    def test_nothing_is_wrong_after_a_third_of_a_minute(self) -> None:
        found = soak.soak(SECONDS / 60, SEED, clients=8, think=0.2, keep=False)
        soak.print_table(found)
        self.assertEqual(found["first_violations"], [])
        # A soak in which nothing happens would find nothing, either.
        self.assertGreater(found["by_outcome"]["whole"], 100)
        self.assertGreater(found["blob_transfers"], 20)
        self.assertGreater(found["faults"], 1)
        self.assertGreater(found["looks"], SECONDS / 3)


if __name__ == "__main__":
    unittest.main()
