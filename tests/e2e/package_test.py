#!/usr/bin/python3
"""The package: what is in it, and its life in a clean Debian where no systemd runs."""

from __future__ import annotations

import re
import tempfile
import time
import unittest
from pathlib import Path

from clean_root import Machine, clean_root, run
from origin import Origin, make_image
from package import PROGRAMS, newer, package
from process import Process
from pulls import Pulls
from staithed import REPOSITORY_ROOT, binary, toml

REGISTRY = "origin.test"
PORT = 5050
SAMPLE = "/etc/staithe/staithe.toml"
ANYBODY = 54321


class Contents(unittest.TestCase):
    @classmethod
    def setUpClass(cls) -> None:
        cls.deb = package()
        cls.entries = {}
        for line in run("dpkg-deb", "--contents", cls.deb).stdout.splitlines():
            mode, owner, _, _, _, name = line.split(maxsplit=5)
            cls.entries[name.partition(" -> ")[0].removeprefix(".").rstrip("/")] = mode, owner

    def field(self, name: str) -> str:
        return run("dpkg-deb", "--field", self.deb, name).stdout.strip()

    def test_has_all_that_is_promised(self) -> None:
        wanted = [
            *(f"/usr/bin/{name}" for name in PROGRAMS),
            "/usr/bin/docker-credential-staithe-nomad",
            SAMPLE,
            "/lib/systemd/system/staithed.service",
            "/lib/systemd/system/staithed.socket",
            "/usr/share/doc/staithe/copyright",
            "/usr/share/doc/staithe/changelog.Debian.gz",
        ]
        for page in (REPOSITORY_ROOT / "docs/man").glob("*.[1-8]"):
            wanted.append(f"/usr/share/man/man{page.suffix[1:]}/{page.name}.gz")
        if run(binary("staithe"), "completion", "bash", check=False).returncode == 0:
            wanted += ["/usr/share/bash-completion/completions/staithe",
                       "/usr/share/zsh/vendor-completions/_staithe",
                       "/usr/share/fish/vendor_completions.d/staithe.fish"]  # fmt: skip
        self.assertEqual([name for name in wanted if name not in self.entries], [])

    def test_belongs_to_root_and_is_written_by_nobody_else(self) -> None:
        for name, (mode, owner) in self.entries.items():
            self.assertEqual(owner, "root/root", name)
            if mode[0] != "l":
                self.assertRegex(mode, r"^.r.[x-]r-[x-]r-[x-]$", name)

    def test_names_the_libraries_that_it_needs_and_this_machines_architecture(self) -> None:
        depends = self.field("Depends")
        for library in ("libc6", "libcurl4", "libssl3", "libsqlite3-0", "libboost-json"):
            self.assertIn(library, depends)
        self.assertNotIn("-dev", depends)
        self.assertEqual(self.field("Architecture"),
                         run("dpkg", "--print-architecture").stdout.strip())  # fmt: skip
        stated = re.search(r"project\(staithe VERSION ([0-9.]+)",
                           (REPOSITORY_ROOT / "CMakeLists.txt").read_text())  # fmt: skip
        assert stated
        self.assertEqual(self.field("Version"), f"{stated[1]}-1")

    def test_lintian_finds_no_error_in_it(self) -> None:
        done = run("lintian", "--allow-root", "--fail-on", "error", self.deb, check=False)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)


class WithoutSystemd(unittest.TestCase):
    """As in a container: the programs and their life without the units."""

    def test_is_installed_serves_is_upgraded_and_goes(self) -> None:
        with tempfile.TemporaryDirectory() as name:
            place, deb = Path(name), package()
            machine = Machine(place / "machine", clean_root(deb))
            self.addCleanup(machine.end)
            machine.sleep()
            before = self.files(machine)
            machine.install(deb)
            # The sample is a good configuration as it is.
            self.assertIn("good", machine.run("staithed", "--check").stdout)
            with machine.network():
                self.serve(machine, place)
            # The daemon's own user made these.
            machine.run("rm", "-r", "/tmp/cache", "/tmp/control")

            changed = machine.path(SAMPLE).read_text() + "\n# A line of the operator.\n"
            machine.path(SAMPLE).write_text(changed)
            machine.install(newer(deb, place))
            self.assertEqual(machine.path(SAMPLE).read_text(), changed)

            machine.run("apt-get", "-qq", "-y", "remove", "staithe")
            self.assertEqual(machine.path(SAMPLE).read_text(), changed)
            machine.run("apt-get", "-qq", "-y", "purge", "staithe")
            self.assertEqual([f for f in self.files(machine) - before if "staithe" in f], [])

    def serve(self, machine: Machine, place: Path) -> None:
        """By the command line of the unit, as somebody without rights."""
        origin = Origin()
        self.addCleanup(origin.close)
        unit = machine.path("/lib/systemd/system/staithed.service").read_text()
        command = re.search(r"^ExecStart=(.*)$", unit, re.M)
        assert command
        origin.add(make_image("app", [40_000], 1))
        registry = {"name": REGISTRY, "upstream": [origin.url], "identity": "nobody"}
        machine.path(SAMPLE).write_text(toml({
            "listen": {"control": "/tmp/control/control.sock"},
            "cache": {"directory": "/tmp/cache", "min_free": 0},
            "registry": [registry],
            "identity": {"nobody": {"kind": "anonymous"}},
        }))  # fmt: skip
        words = machine.command_line("setpriv", "--clear-groups", f"--reuid={ANYBODY}",
                                     f"--regid={ANYBODY}", *command[1].split())  # fmt: skip
        daemon = Process("staithed", words, place / "staithed.log")
        self.addCleanup(daemon.stop)
        deadline = time.monotonic() + 20
        while "serving" not in daemon.tail(20):
            daemon.must_run()
            self.assertLess(time.monotonic(), deadline, daemon.tail(20))
            time.sleep(0.05)
        with Pulls(origin, REGISTRY, PORT, each=1) as pulls:
            pulls.wait_for(2)
        self.assertEqual(pulls.failures, [])
        status = machine.run("staithe", "--socket", "/tmp/control/control.sock", "status").stdout
        self.assertIn(REGISTRY, status)
        machine.run("sh", "-c", "kill -TERM $(grep -l '^staithed$' /proc/[0-9]*/comm"
                    " | cut -d/ -f3)")  # fmt: skip
        self.assertEqual(daemon.wait(30), 0, daemon.tail(20))

    @staticmethod
    def files(machine: Machine) -> set[str]:
        return set(machine.run("find", "/", "-xdev").stdout.splitlines())


if __name__ == "__main__":
    unittest.main()
