#!/usr/bin/python3
"""The man pages are pages that man and mandoc read without a complaint."""

from __future__ import annotations

import os
import subprocess
import unittest
from pathlib import Path

PAGES = sorted((Path(__file__).resolve().parents[2] / "docs/man").glob("*.[158]"))


class Pages(unittest.TestCase):
    def test_they_are_all_there(self) -> None:
        names = {page.name for page in PAGES}
        self.assertLessEqual({"staithed.8", "staithe.1", "staithe.toml.5",
                              "docker-credential-staithe.1", "staithe-credential-provider.8"},
                             names)  # fmt: skip

    def test_mandoc_has_nothing_to_say(self) -> None:
        for page in PAGES:
            with self.subTest(page=page.name):
                done = subprocess.run(["mandoc", "-Tlint", "-Wwarning", page], text=True,
                                      capture_output=True, check=False)  # fmt: skip
                self.assertEqual((done.stdout, done.returncode), ("", 0))

    def test_man_shows_them_without_a_warning(self) -> None:
        for page in PAGES:
            with self.subTest(page=page.name):
                environment = {**os.environ, "MANWIDTH": "80", "LC_ALL": "C.UTF-8"}
                done = subprocess.run(["man", "--warnings", "--local-file", page], text=True,
                                      capture_output=True, check=True, env=environment)  # fmt: skip
                self.assertEqual(done.stderr, "")
                title = page.name[: page.name.rfind(".")]
                self.assertIn(title.upper(), done.stdout)
                self.assertIn("SEE ALSO", done.stdout)


if __name__ == "__main__":
    unittest.main()
