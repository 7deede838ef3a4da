#!/usr/bin/python3
"""The units, as systemd sees them, and as it runs them: in a clean Debian with the package."""

from __future__ import annotations

import json
import os
import re
import subprocess
import tempfile
import time
import unittest
from collections.abc import Callable
from pathlib import Path

from clean_root import Machine, clean_root, run
from origin import Origin, make_image
from package import newer, package
from pulls import Pulls
from staithed import REPOSITORY_ROOT, toml

UNITS = REPOSITORY_ROOT / "systemd"
REGISTRY = "origin.test"
PORT = 5050
SAMPLE = "/etc/staithe/staithe.toml"
MOST_EXPOSURE = 1.1
RESTARTS = int(os.environ.get("STAITHE_RESTARTS", "8"))


class Units(unittest.TestCase):
    def test_systemd_finds_no_fault_in_them(self) -> None:
        with tempfile.TemporaryDirectory() as place:
            # The programs that they name are somewhere else, and their pages not installed.
            for unit in UNITS.iterdir():
                text = unit.read_text().replace("/usr/bin/staithed", "/bin/true")
                text = re.sub(r"^Documentation=.*\n", "", text, flags=re.M)
                (Path(place) / unit.name).write_text(text)
            done = run("systemd-analyze", "verify", *sorted(Path(place).iterdir()))
        self.assertEqual((done.stdout, done.stderr), ("", ""))

    def test_the_service_is_exposed_as_little_as_it_says(self) -> None:
        # The threshold is in tenths; the status is 1 above it.
        done = run("systemd-analyze", "security", "--offline=true", "--no-pager",
                   f"--threshold={round(MOST_EXPOSURE * 10)}", UNITS / "staithed.service",
                   check=False)  # fmt: skip
        found = re.search(r"Overall exposure level for staithed.service: ([0-9.]+)", done.stdout)
        assert found, done.stdout + done.stderr
        print(f"exposure: {found[1]}")
        self.assertLessEqual(float(found[1]), MOST_EXPOSURE)
        self.assertEqual(done.returncode, 0, done.stdout)


class Booted(unittest.TestCase):
    """One machine for all: each test leaves the service running with the configuration below."""

    @classmethod
    def setUpClass(cls) -> None:
        place = tempfile.TemporaryDirectory()
        cls.addClassCleanup(place.cleanup)
        cls.place = Path(place.name)
        cls.package = package()
        cls.machine = Machine(cls.place / "machine", clean_root(cls.package))
        cls.addClassCleanup(cls.machine.end)
        cls.machine.boot()
        cls.machine.install(cls.package)
        cls.enterClassContext(cls.machine.network())
        cls.origin = Origin()
        cls.addClassCleanup(cls.origin.close)
        cls.first = cls.origin.add(make_image("app", [40_000], 1))
        cls.machine.path(SAMPLE).write_text(toml(cls.configuration()))
        cls.restart()

    @classmethod
    def configuration(cls, **more: object) -> dict:
        origin = {"name": REGISTRY, "upstream": [cls.origin.url], "identity": "nobody"}
        return {
            "cache": {"min_free": 0},
            **more,
            "registry": [origin],
            "identity": {"nobody": {"kind": "anonymous"}},
        }

    # ---- helpers -------------------------------------------------------------------------------

    @classmethod
    def restart(cls) -> None:
        # Starts that are asked for count as well, and here are many.
        cls.machine.systemctl("reset-failed", "staithed.service", "staithed.socket", check=False)
        cls.machine.systemctl("restart", "staithed.service")

    def status(self) -> dict:
        return json.loads(self.machine.run("staithe", "status", "--json").stdout)

    def pid(self) -> int:
        return int(self.machine.show("staithed.service", "MainPID"))

    def pull_status(self, *as_whom: str) -> int:
        """Of a manifest by a client with its own connection: the HTTP status."""
        url = f"http://127.0.0.1:{PORT}/v2/{REGISTRY}/app/manifests/1"
        script = f"import urllib.request as u; print(u.urlopen('{url}', timeout=60).status)"
        done = subprocess.run([*as_whom, "/usr/bin/python3", "-c", script], text=True,
                              capture_output=True, check=False)  # fmt: skip
        refused = re.search(r"HTTP Error (\d+)", done.stderr)
        return int(refused[1]) if refused else int(done.stdout or 0)

    def wait_until(self, condition: Callable[[], bool], what: str, seconds: float = 30) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                self.fail(f"{what}\n{self.machine.journal('staithed.service')[-3000:]}")
            time.sleep(0.05)

    def drop_in(self, text: str, unit: str = "staithed.service") -> None:
        """As systemctl edit does it; taken away after the test."""
        directory = self.machine.path(f"/etc/systemd/system/{unit}.d")
        directory.mkdir(exist_ok=True)
        (directory / "override.conf").write_text(text)
        self.addCleanup(self.restart)
        self.addCleanup(self.machine.systemctl, "daemon-reload")
        self.addCleanup((directory / "override.conf").unlink)
        self.machine.systemctl("daemon-reload")

    def configured(self, text: str) -> None:
        file = self.machine.path(SAMPLE)
        before = file.read_text()
        self.addCleanup(file.write_text, before)
        file.write_text(text)

    # ---- as it is installed --------------------------------------------------------------------

    def test_it_serves_from_the_installation_on(self) -> None:
        for unit in ("staithed.service", "staithed.socket"):
            self.assertTrue(self.machine.active(unit), self.machine.journal(unit))
            self.assertEqual(self.machine.systemctl("is-enabled", unit), "enabled")
        self.assertEqual(self.status()["listen"], [f"127.0.0.1:{PORT}"])
        self.assertEqual(self.pull_status(), 200)

    def test_it_runs_as_nobody_in_particular_with_nothing_to_reach_for(self) -> None:
        lines = self.machine.path(f"/proc/{self.pid()}/status").read_text().splitlines()
        found = {name: value.split() for name, _, value in (line.partition(":") for line in lines)}
        self.assertGreaterEqual(int(found["Uid"][0]), 61184)  # of those that systemd gives away
        capabilities = [found[f"Cap{which}"] for which in ("Inh", "Prm", "Eff", "Bnd", "Amb")]
        self.assertEqual(capabilities, [["0" * 16]] * 5)
        self.assertEqual(found["NoNewPrivs"], ["1"])
        self.assertEqual(found["Seccomp"], ["2"])
        # Secrets: no core, memory that is locked, and files in /proc that are not its user's.
        self.assertRegex(self.machine.path(f"/proc/{self.pid()}/limits").read_text(),
                         r"Max core file size\s+0\s+0\s")  # fmt: skip
        self.assertGreaterEqual(int(found["VmLck"][0]), 128)
        self.assertEqual(self.machine.path(f"/proc/{self.pid()}/mem").stat().st_uid, 0)
        self.assertEqual(self.machine.path("/var/cache/private/staithe").stat().st_mode & 0o777,
                         0o700)  # fmt: skip
        # Of the machine it sees what the unit names.
        inside = self.machine.path(f"/proc/{self.pid()}/root")
        for other in ("srv", "boot", "var/lib/dpkg", "run/systemd/private"):
            self.assertFalse((inside / other).exists(), other)
        self.assertTrue((inside / "etc/ssl/certs").is_dir())

    def test_its_state_is_one_line_of_systemctl_status(self) -> None:
        self.assertRegex(self.machine.show("staithed.service", "StatusText"),
                         r"^serving; \d+ connections?, \d+ transfers?; .* cached")  # fmt: skip
        self.assertNotIn("error", self.machine.journal("staithed.service").lower())

    # ---- reload --------------------------------------------------------------------------------

    def test_a_reload_takes_a_good_file_over_and_refuses_a_bad_one(self) -> None:
        pid = self.pid()
        good = toml(self.configuration(listen={"drain_timeout": "20s"}))
        self.configured(good)
        self.machine.systemctl("reload", "staithed.service")
        self.assertEqual(self.status_of_config("drain_timeout"), '"20s"')
        self.configured(good + "\n[cash]\nsize = 1\n")
        done = self.machine.run("systemctl", "reload", "staithed.service", check=False)
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("cash", self.machine.journal("staithed.service"))
        # By the signal alone it is refused as well, and systemctl status says so.
        self.machine.systemctl("kill", "--signal=HUP", "--kill-who=main", "staithed.service")
        self.wait_until(
            lambda: "configuration not reloaded: "
            in self.machine.show("staithed.service", "StatusText"),
            "the status says nothing of a bad configuration",
        )
        self.assertTrue(self.machine.active("staithed.service"))
        self.assertEqual(self.pid(), pid)
        self.assertEqual(self.status_of_config("drain_timeout"), '"20s"')
        self.doCleanups()
        self.machine.systemctl("reload", "staithed.service")

    def status_of_config(self, key: str) -> str:
        text = self.machine.run("staithe", "config").stdout
        found = re.search(rf"^{key} = (.*)$", text, re.M)
        assert found, text
        return found[1]

    def test_a_bad_file_ends_the_start_and_is_not_tried_again(self) -> None:
        self.configured("[cash]\n")
        done = self.machine.run("systemctl", "restart", "staithed.service", check=False)
        self.assertNotEqual(done.returncode, 0)
        self.assertEqual(self.machine.show("staithed.service", "ExecMainStatus"), "2")
        self.assertEqual(self.machine.systemctl("is-active", "staithed.service", check=False),
                         "failed")  # fmt: skip
        # Nobody is kept waiting by a daemon that cannot start: the port closes, and clients go to
        # their next source.
        self.assertEqual(self.pull_status(), 0)
        self.wait_until(lambda: not self.machine.active("staithed.socket"), "the port is open")
        self.assertEqual(self.pull_status(), 0)
        self.doCleanups()
        self.restart()
        self.assertTrue(self.machine.active("staithed.socket"))
        self.assertEqual(self.pull_status(), 200)

    # ---- who calls -----------------------------------------------------------------------------

    def check_access(self) -> None:
        self.configured(toml(self.configuration(access={"users": ["4321"]})))
        self.restart()
        to_be = ["setpriv", "--clear-groups", "--reuid"]
        self.assertEqual(self.pull_status(), 200)
        self.assertEqual(self.pull_status(*to_be, "4321"), 200)
        self.assertEqual(self.pull_status(*to_be, "4322"), 403)

    def test_callers_are_told_apart_by_the_socket_that_it_is_passed(self) -> None:
        self.addCleanup(self.restart)
        self.check_access()

    def test_callers_are_told_apart_without_that_socket(self) -> None:
        # Their order: the files are as before when it is started again.
        self.addCleanup(self.machine.systemctl, "start", "staithed.socket", "staithed.service")
        self.addCleanup(self.machine.systemctl, "unmask", "--runtime", "staithed.socket")
        self.addCleanup(self.machine.systemctl, "stop", "staithed.service")
        self.machine.systemctl("stop", "staithed.socket", "staithed.service")
        self.machine.systemctl("mask", "--runtime", "staithed.socket")
        self.check_access()

    def test_a_credential_reaches_the_daemon(self) -> None:
        secret = self.machine.path("/etc/staithe/puller.password")
        secret.write_text("not a secret of anybody\n")
        secret.chmod(0o600)
        self.addCleanup(secret.unlink)
        self.drop_in("[Service]\nLoadCredential=puller:/etc/staithe/puller.password\n")
        config = self.configuration()
        config["identity"]["puller"] = {
            "kind": "basic", "username": "puller",
            "password_file": "${CREDENTIALS_DIRECTORY}/puller",
        }  # fmt: skip
        config["registry"].append({"name": "other.test", "identity": "puller"})
        self.configured(toml(config))
        self.restart()
        self.machine.systemctl("reload", "staithed.service")
        done = self.machine.run("staithe", "pull-secret", "other.test", check=False)
        self.assertEqual(done.returncode, 0, done.stderr)

    # ---- the watchdog --------------------------------------------------------------------------

    def test_a_daemon_that_stands_still_is_replaced(self) -> None:
        self.drop_in("[Service]\nWatchdogSec=1s\nRestartSec=100ms\n")
        self.restart()
        pid = self.pid()
        self.machine.systemctl("kill", "--signal=STOP", "--kill-who=main", "staithed.service")
        # Who comes meanwhile is served by the next one.
        self.assertEqual(self.pull_status(), 200)
        self.assertNotEqual(self.pid(), pid)
        self.assertIn("watchdog", self.machine.journal("staithed.service").lower())

    # ---- no pull is lost -----------------------------------------------------------------------

    def test_restarts_under_load_lose_no_pull(self) -> None:
        with Pulls(self.origin, REGISTRY, PORT) as pulls:
            for _ in range(RESTARTS):
                pulls.wait_for(1)
                self.restart()
            pulls.wait_for(1)
        print(f"{RESTARTS} restarts under load: {pulls.summary()}")
        self.assertEqual(pulls.failures, [])

    def test_an_upgrade_under_load_loses_no_pull(self) -> None:
        pid = self.pid()
        listening = self.machine.show("staithed.socket", "ActiveEnterTimestampMonotonic")
        with Pulls(self.origin, REGISTRY, PORT, each=2) as pulls:
            pulls.wait_for(1)
            self.machine.install(newer(self.package, self.place))
            pulls.wait_for(1)
        print(f"an upgrade under load: {pulls.summary()}")
        self.assertEqual(pulls.failures, [])
        self.assertNotEqual(self.pid(), pid)
        self.assertEqual(
            self.machine.show("staithed.socket", "ActiveEnterTimestampMonotonic"), listening
        )
        # The file had been changed, so it stays as it was; what the newer version has lies beside.
        self.assertEqual(self.machine.path(SAMPLE).read_text(), toml(self.configuration()))
        beside = self.machine.path(SAMPLE + ".dpkg-dist")
        self.assertIn("newer version", beside.read_text())
        beside.unlink()


class Gone(unittest.TestCase):
    def test_remove_keeps_what_is_the_operators_and_purge_leaves_nothing(self) -> None:
        with tempfile.TemporaryDirectory() as place:
            deb = package()
            machine = Machine(Path(place) / "machine", clean_root(deb))
            self.addCleanup(machine.end)
            machine.boot()
            machine.install(deb)
            self.assertTrue(machine.active("staithed.service"))
            machine.path("/etc/staithe/app.secret").write_text("a secret\n")
            machine.run("apt-get", "-qq", "-y", "remove", "staithe")
            for unit in ("staithed.service", "staithed.socket"):
                self.assertFalse(machine.active(unit))
            self.assertTrue(machine.path(SAMPLE).is_file())
            self.assertTrue(machine.path("/var/cache/private/staithe/index.db").is_file())
            self.assertFalse(machine.path("/usr/bin/staithed").exists())
            machine.run("apt-get", "-qq", "-y", "purge", "staithe")
            left = machine.run("find", "/etc", "/usr", "/var", "/run", "/lib/", "-name",
                               "*staithe*", "-not", "-path", "/run/systemd/journal/*")  # fmt: skip
            self.assertEqual(left.stdout, "")
            units = machine.systemctl("list-unit-files", "staithed*", "--no-legend", check=False)
            self.assertEqual(units, "")


if __name__ == "__main__":
    unittest.main()
