#!/usr/bin/python3
"""[access]: the kernel says who calls, and the daemon serves those who are named."""

from __future__ import annotations

import grp
import json
import os
import pwd
import signal
import stat
import subprocess
import time
import unittest
from pathlib import Path
from typing import Any

from lab import LabTest, needs_root
from staithed import toml

REGISTRY = "contoso.azurecr.io"
NAMED = 54321
STRANGER = 54323
SOLO = 54324
MEMBER = pwd.getpwnam("daemon")  # of its own group, by the user database

# Asks as another user: address ("127.0.0.1:5050", "[::1]:5050" or a socket's path), method, path, body.
CLIENT = """
import http.client, socket, sys
address, method, path, body = sys.argv[1:]
if address.startswith("/"):
    connection = http.client.HTTPConnection("localhost", timeout=20)
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(address)
else:
    connection = http.client.HTTPConnection(address, timeout=20)
connection.request(method, path, body or None)
answer = connection.getresponse()
print(answer.status, answer.headers.get("WWW-Authenticate"))
print(answer.read().decode())
"""


def ask_as(uid: int, address: str, path: str, body: dict[str, Any] | None = None) -> tuple[int, Any]:
    done = subprocess.run(
        ["/usr/bin/python3", "-c", CLIENT, address, "POST" if body else "GET", path,
         json.dumps(body) if body else ""],
        user=uid, group=uid, extra_groups=[], capture_output=True, text=True, timeout=30, check=True,
    )  # fmt: skip
    head, answer = done.stdout.split("\n", 1)
    status, challenge = head.split(" ", 1)
    assert challenge == "None", "nobody is ever challenged"
    return int(status), json.loads(answer)


@needs_root
class Access(LabTest):
    def setUp(self) -> None:
        super().setUp()
        # The directories are ours alone by default; here other users must reach the sockets.
        self.lab.directory.chmod(0o755)
        self.staithed = self.lab.staithed
        self.registry_socket = str(self.staithed.socket.with_name("registry.sock"))
        listen = {"registry": [self.staithed.address, f"unix:{self.registry_socket}"]}
        self.staithed.configured({"listen": listen})
        self.manifest = f"/v2/{REGISTRY}/busybox/manifests/1"

    def restricted(self) -> None:
        group = grp.getgrgid(MEMBER.pw_gid).gr_name
        self.staithed.configured({"access": {"users": [str(NAMED)], "groups": [group]}})
        self.staithed.start()

    def pulls(self, uid: int) -> set[int]:
        doors = (self.staithed.address, self.registry_socket)
        return {ask_as(uid, door, self.manifest)[0] for door in doors}

    def test_everybody_is_served_and_nobody_is_given_a_password_by_default(self) -> None:
        self.staithed.start()
        self.assertEqual(self.pulls(STRANGER), {200})
        self.assertEqual(stat.S_IMODE(os.stat(self.staithed.socket).st_mode), 0o660)

    def test_only_those_who_are_named_are_served(self) -> None:
        self.restricted()
        for uid, status in ((0, 200), (NAMED, 200), (MEMBER.pw_uid, 200), (STRANGER, 403)):
            with self.subTest(uid=uid):
                self.assertEqual(self.pulls(uid), {status})
        status, answer = ask_as(STRANGER, self.staithed.address, self.manifest)
        self.assertEqual(answer["errors"][0]["code"], "DENIED")
        self.assertIn(str(STRANGER), answer["errors"][0]["message"])
        self.assertEqual(ask_as(STRANGER, self.staithed.address, "/healthz")[0], 200)
        self.assertEqual(self.staithed.status()["traffic"]["denied"], 3)
        said = self.staithed.log.read_text().count("a user was refused")
        self.assertEqual(said, 1, "once for a user and minute")

    def test_a_password_is_for_those_who_are_named(self) -> None:
        self.restricted()
        control = str(self.staithed.socket)
        ask = {"registry": REGISTRY}
        self.assertEqual(stat.S_IMODE(os.stat(control).st_mode), 0o666)
        for uid in (0, NAMED, MEMBER.pw_uid):
            status, answer = ask_as(uid, control, "/v1/credential", ask)
            self.assertEqual((status, answer["registry"]), (200, REGISTRY), answer)
        secret = answer["password"]
        for path, body in (("/v1/credential", ask), ("/v1/credentials", None), ("/v1/status", None),
                           ("/v1/renew", ask)):  # fmt: skip
            status, answer = ask_as(STRANGER, control, path, body)
            self.assertEqual(status, 403, path)
        for uid in (NAMED, STRANGER):
            for path, body in (
                ("/v1/credential", {**ask, "purpose": "expose-token"}),
                ("/v1/login", {**ask, "token": "x"}),
                ("/v1/logout", ask),
            ):
                self.assertEqual(ask_as(uid, control, path, body)[0], 403, path)
        self.assertNotIn(secret, self.staithed.log.read_text())

    def test_a_registry_with_lists_of_its_own_is_for_those_alone(self) -> None:
        mine = "fabrikam.azurecr.io"
        self.staithed.registry(mine)["access"] = {"users": [str(SOLO)]}
        self.restricted()
        manifest = f"/v2/{mine}/busybox/manifests/1"
        control = str(self.staithed.socket)
        for uid, ours, all_others in ((0, True, True), (SOLO, True, False), (NAMED, False, True),
                                      (STRANGER, False, False)):  # fmt: skip
            with self.subTest(uid=uid):
                for registry, target, may in ((mine, manifest, ours),
                                              (REGISTRY, self.manifest, all_others)):  # fmt: skip
                    for door in (self.staithed.address, self.registry_socket):
                        status, answer = ask_as(uid, door, target)
                        self.assertEqual(status, 200 if may else 403, answer)
                    status, answer = ask_as(uid, control, "/v1/credential", {"registry": registry})
                    self.assertEqual(status, 200 if may else 403)
                    self.assertEqual("password" in answer, may)
        # What is in the cache by his registry is not thereby his by another.
        layer = self.lab.image("fabrikam/busybox:1")["layers"][0]["digest"]
        self.assertEqual(ask_as(SOLO, self.staithed.address,
                                f"/v2/{REGISTRY}/busybox/blobs/{layer}")[0], 403)  # fmt: skip
        for uid, may in ((SOLO, True), (NAMED, False)):
            answer = ask_as(uid, control, f"/v1/explain?image={mine}/busybox:1")[1]
            self.assertEqual(answer["access"],
                             {"by": "registry.access", "users": [str(SOLO)], "groups": [],
                              "caller": {"uid": uid, "may_pull": may}})  # fmt: skip
        told = self.as_user(NAMED, "skopeo", "inspect", "--tls-verify=false",
                            f"docker://{self.staithed.address}/{mine}/busybox:1")  # fmt: skip
        self.assertNotEqual(told.returncode, 0)
        self.assertIn(f"the user with uid {NAMED} may not pull from {mine} here", told.stderr)

    def as_user(self, uid: int, *command: str) -> subprocess.CompletedProcess[str]:
        home = self.lab.directory / f"home-{uid}"
        home.mkdir(exist_ok=True)
        os.chown(home, uid, uid)
        return subprocess.run(
            command, user=uid, group=uid, extra_groups=[], capture_output=True, text=True,
            timeout=60, check=False, cwd=home,
            env={"PATH": os.environ["PATH"], "HOME": str(home), "XDG_RUNTIME_DIR": str(home)},
        )  # fmt: skip

    def test_a_refusal_says_who_it_was_and_where_he_runs(self) -> None:
        cgroups = Path("/sys/fs/cgroup")
        if not (cgroups / "cgroup.controllers").exists():
            cgroups /= "unified"
        place = cgroups / f"staithe-test-{os.getpid()}.service"
        try:
            place.mkdir()
        except OSError as error:
            self.skipTest(f"no control groups of version 2 can be made here: {error}")
        self.addCleanup(place.rmdir)
        self.restricted()
        subprocess.run(
            ["sh", "-c", 'echo $$ > "$0/cgroup.procs"; exec "$@"', place, "setpriv",
             f"--reuid={STRANGER}", f"--regid={STRANGER}", "--clear-groups", "/usr/bin/python3", "-c",
             CLIENT, self.staithed.address, "GET", self.manifest, ""],
            stdout=subprocess.DEVNULL, timeout=60, check=True,
        )  # fmt: skip
        (refused,) = self.staithed.status()["access"]["refused"]
        self.assertEqual((refused["uid"], refused["times"]), (STRANGER, 1))
        self.assertEqual((refused["right"], refused["registry"]), ("pull", REGISTRY))
        path = refused["cgroup"]
        self.assertTrue(path.endswith(f"/{place.name}"), path)
        self.assertIn(f"user={STRANGER} right=pull registry={REGISTRY} cgroup={path} ",
                      self.staithed.log.read_text())  # fmt: skip

    def test_a_reload_takes_it_over(self) -> None:
        self.restricted()
        self.assertEqual(self.pulls(STRANGER), {403})
        del self.staithed.config["access"]
        self.staithed.config_file.write_text(toml(self.staithed.config))
        self.staithed.process.signal(signal.SIGHUP)
        deadline = time.monotonic() + 20
        while self.pulls(STRANGER) != {200}:
            self.assertLess(time.monotonic(), deadline, "the reload is not taken over")
        self.assertEqual(stat.S_IMODE(os.stat(self.staithed.socket).st_mode), 0o660)


if __name__ == "__main__":
    unittest.main()
