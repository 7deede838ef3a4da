#!/usr/bin/python3
"""Configuration faults are told all at once, by file, line and key; exit codes mean something."""

from __future__ import annotations

import re
import subprocess
import tempfile
import unittest

from lab import LabTest
from staithed import binary

FAULTS = """\
[listen]
registry = "127.0.0.1:5050"
contol = "/run/staithe/control.sock"

[cache]
max_size = "80 percent"
min_free = "5%"

[limits]
connections = -1
header_timeout = "ten"

[[registry]]
name = "contoso.azurecr.io"
identity = "nobody"
upstream = ["ftp://contoso.azurecr.io"]

[identity.vm]
kind = "managed-identity"
client_id = "a"
object_id = "b"

[identity.robot]
kind = "basic"
username = "robot"
password = "secret in the file"
"""
FAULTY_LINES = {2, 3, 6, 10, 11, 15, 16, 26}
FAULT = re.compile(r"(?P<file>.+?):(?P<line>\d+): (?P<key>[\w.\[\]\"*-]+): (?P<what>.+)")


def check(text: str) -> subprocess.CompletedProcess[str]:
    with tempfile.NamedTemporaryFile("w", suffix=".toml") as file:
        file.write(text)
        file.flush()
        done = subprocess.run(
            [binary("staithed"), "--config", file.name, "--check"],
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
        done.args = file.name
        return done


class Check(unittest.TestCase):
    def test_all_faults_are_told_at_once(self) -> None:
        done = check(FAULTS)
        self.assertEqual(done.returncode, 2)
        lines = done.stderr.strip().splitlines()
        found = [FAULT.fullmatch(line) for line in lines]
        self.assertNotIn(None, found, done.stderr)
        self.assertEqual({match["file"] for match in found if match}, {done.args})
        told = {int(match["line"]) for match in found if match}
        self.assertLessEqual(FAULTY_LINES, told, done.stderr)
        # The two selectors contradict each other; either line may be named for it.
        self.assertTrue(told & {20, 21}, done.stderr)
        self.assertNotIn("secret in the file", done.stderr + done.stdout)

    def test_what_is_not_toml_is_told_with_its_line(self) -> None:
        done = check("[listen]\nregistry = [\n\n[cache\n")
        self.assertEqual(done.returncode, 2)
        self.assertRegex(done.stderr, r":\d+: ")

    def test_a_good_file_is_good(self) -> None:
        done = check('[cache]\nmax_size = "10GiB"\n[freshness]\ntag_ttl = "1m"\n')
        self.assertEqual((done.returncode, done.stderr), (0, ""))

    def test_bad_arguments_are_2(self) -> None:
        done = subprocess.run(
            [binary("staithed"), "--no-such-option"], capture_output=True, text=True, check=False
        )
        self.assertEqual(done.returncode, 2)
        self.assertIn("--no-such-option", done.stderr)

    def test_a_file_that_is_named_must_exist(self) -> None:
        done = subprocess.run(
            [binary("staithed"), "--config", "/nonexistent/staithe.toml", "--check"],
            capture_output=True,
            text=True,
            check=False,
        )
        self.assertEqual(done.returncode, 2)
        self.assertIn("/nonexistent/staithe.toml", done.stderr)


class Instances(LabTest):
    def test_a_second_instance_on_the_same_cache_exits_with_3(self) -> None:
        first = self.lab.staithed.start()
        second = self.lab.another_staithed("second")
        second.configured({"cache": {"directory": str(first.cache)}})
        with self.assertRaisesRegex(RuntimeError, "ended with 3"):
            second.start()
        self.assertEqual(first.get("/readyz").status, 200)
        self.assertIn(str(first.cache), second.log.read_text())

    def test_a_stop_drains_and_ends_with_0(self) -> None:
        staithed = self.lab.staithed.start()
        self.assertEqual(staithed.get("/v2/").status, 200)
        self.assertEqual(staithed.stop(), 0)

    def test_the_command_says_3_when_no_daemon_answers(self) -> None:
        done = self.lab.staithed.command("status")
        self.assertEqual(done.returncode, 3)
        self.assertIn(str(self.lab.staithed.socket), done.stderr)

    def test_status_for_people_names_registries(self) -> None:
        staithed = self.lab.staithed.start()
        done = staithed.command("status")
        self.assertEqual(done.returncode, 0, done.stderr)
        for name in ("contoso.azurecr.io", "docker.io"):
            self.assertIn(name, done.stdout)


if __name__ == "__main__":
    unittest.main()
