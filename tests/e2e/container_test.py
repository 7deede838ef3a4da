#!/usr/bin/python3
"""The image recipe, step by step in a clean Debian: there is no registry here to take one from."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
import time
import unittest
from pathlib import Path

from clean_root import Machine, clean_root
from origin import Origin
from package import package
from process import Process
from pulls import Pulls
from staithed import REPOSITORY_ROOT, toml

RECIPE = REPOSITORY_ROOT / "etc/container/Dockerfile"
REGISTRY = "origin.test"
# As `docker run --read-only` with a volume for the cache: nothing else of the root can be written.
READ_ONLY = """mount --bind /var/cache/staithe /var/cache/staithe
    mount -o remount,bind,ro /
    exec "$@"
"""


def instructions() -> list[tuple[str, str]]:
    text = re.sub(r"^#.*\n", "", RECIPE.read_text(), flags=re.M).replace("\\\n", "")
    lines = [line.partition(" ") for line in text.splitlines() if line]
    return [(name, rest) for name, _, rest in lines]


class Image(unittest.TestCase):
    def test_is_made_serves_is_healthy_and_ends(self) -> None:
        with tempfile.TemporaryDirectory() as name:
            place = Path(name)
            deb = package()
            machine = Machine(place / "machine", clean_root(deb))
            self.addCleanup(machine.end)
            machine.sleep()
            last = self.build(machine, deb)
            with machine.network():
                self.run_it(machine, place, last)

    def build(self, machine: Machine, deb: Path) -> dict[str, str]:
        """Gives what the image says of how it is run."""
        steps = instructions()
        self.assertEqual(steps[0], ("FROM", "debian:12-slim"))
        for name, rest in steps:
            if name == "COPY":
                pattern, target = rest.split()
                self.assertTrue(deb.match(pattern), f"{pattern} is not {deb.name}")
                shutil.copy(deb, machine.path(target))
            if name == "RUN":
                machine.run("sh", "-e", "-c", rest)
        return dict(steps)

    def run_it(self, machine: Machine, place: Path, image: dict[str, str]) -> None:
        origin = Origin()
        self.addCleanup(origin.close)
        machine.path("/etc/staithe/staithe.toml").write_text(toml({
            "cache": {"min_free": 0},
            "registry": [{"name": REGISTRY, "upstream": [origin.url], "identity": "nobody"}],
            "identity": {"nobody": {"kind": "anonymous"}},
        }))  # fmt: skip
        uid, gid = image["USER"].split(":")
        as_user = ["env", *image["ENV"].split(), "setpriv", "--clear-groups", f"--reuid={uid}",
                   f"--regid={gid}", "--bounding-set=-all", "--no-new-privs"]  # fmt: skip
        command = ["unshare", "--mount", "sh", "-e", "-c", READ_ONLY, "sh", *as_user,
                   *json.loads(image["ENTRYPOINT"])]  # fmt: skip
        daemon = Process("staithed", machine.command_line(*command), place / "staithed.log")
        self.addCleanup(daemon.stop)
        check = json.loads(image["HEALTHCHECK"].partition(" CMD ")[2])
        deadline = time.monotonic() + 30
        while machine.run(*as_user, *check, check=False).returncode != 0:
            daemon.must_run()
            self.assertLess(time.monotonic(), deadline, daemon.tail(20))
        with Pulls(origin, REGISTRY, 5050, each=1) as pulls:
            pulls.wait_for(2)
        self.assertEqual(pulls.failures, [])
        self.assertEqual(machine.path(image["VOLUME"]).stat().st_uid, int(uid))
        stop = image["STOPSIGNAL"].removeprefix("SIG")
        machine.run("sh", "-c", f"kill -{stop} $(grep -l '^staithed$' /proc/[0-9]*/comm "
                    "| cut -d/ -f3)")  # fmt: skip
        self.assertEqual(daemon.wait(60), 0, daemon.tail(20))
        self.assertNotEqual(machine.run(*as_user, *check, check=False).returncode, 0)


if __name__ == "__main__":
    unittest.main()
