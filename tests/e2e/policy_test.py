#!/usr/bin/python3
"""Who may have what: every kind of user, at every door, for every kind of question.

The policy stands here once, in `allowed()`, as docs/security.md has it; what the daemon does is held
against it. It runs as a user of its own, as the shipped unit has it.
"""

from __future__ import annotations

import grp
import json
import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import time
import unittest
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from lab import needs_root
from metrics_text import Scrape
from node import Node
from origin import Origin, make_image
from staithed import binary, toml

_HERE = Path(__file__).resolve().parent
ASKER = (_HERE / "asker.py").read_text()
LEAVERS = (_HERE / "leavers.py").read_text()

EVERYBODY = None  # both lists empty


class User(NamedTuple):
    uid: int
    gid: int


_DAEMON = pwd.getpwnam("daemon")  # a member of its own group, by the user database
_BIN = pwd.getpwnam("bin")
USERS = {
    "root": User(0, 0),
    "own": User(54390, 54390),  # as whom staithed runs
    "named": User(54321, 54321),
    "member": User(_DAEMON.pw_uid, _DAEMON.pw_gid),
    "single": User(54322, 54322),
    "group member": User(_BIN.pw_uid, _BIN.pw_gid),
    "other": User(54323, 54323),
}
# Registries, and whom their own lists name; one without such lists is judged by [access].
OWN_LISTS: dict[str, set[str] | None] = {
    "single.test": {"single"},
    "group.test": {"group member"},
    "all.test": EVERYBODY,
}
REGISTRIES = ["open.test", *OWN_LISTS]
# Two configurations: what [access] says in each.
RESTRICTED = {"named", "member"}
OF_ALL: list[set[str] | None] = [RESTRICTED, EVERYBODY]


def allowed(user: str, right: str, registry: str | None, of_all: set[str] | None) -> bool:
    """The policy."""
    if right == "anybody" or user in ("root", "own"):
        return True
    if right == "own":
        return False
    if right == "look":
        named = set().union(*(names for names in (of_all, *OWN_LISTS.values()) if names))
        return user in named
    if registry is None:  # something of some registry
        return any(allowed(user, right, one, of_all) for one in REGISTRIES)
    names = OWN_LISTS.get(registry, of_all)
    if names is EVERYBODY:
        return right == "pull"
    return user in names


class Row(NamedTuple):
    """A question; `status` is that of the answer for who may."""

    method: str
    target: str
    right: str
    registry: str | None
    status: int
    body: str = ""


def registry_rows(digest: str, layer: str) -> list[Row]:
    rows = [
        Row("GET", "/healthz", "anybody", None, 200),
        Row("GET", "/readyz", "anybody", None, 200),
        Row("GET", "/v2/", "pull", None, 200),
        Row("GET", "/v2/elsewhere.test/app/manifests/1", "pull", None, 404),
        Row("GET", "/nothing", "pull", None, 404),
        Row("PUT", "/v2/open.test/app/manifests/1", "pull", "open.test", 405),
    ]
    for registry in REGISTRIES:
        for method, rest, status in (
            ("GET", "app/manifests/1", 200),
            ("GET", f"app/manifests/{digest}", 200),
            ("HEAD", f"app/manifests/{digest}", 200),
            ("GET", f"app/blobs/{layer}", 200),
            ("HEAD", f"app/blobs/{layer}", 200),
            ("GET", "app/tags/list", 404),  # this origin has none
            ("GET", f"app/referrers/{digest}", 200),  # and answers so whatever is asked of a digest
        ):
            rows.append(Row(method, f"/v2/{registry}/{rest}", "pull", registry, status))
        rows.append(Row("GET", f"/v2/app/blobs/{layer}?ns={registry}", "pull", registry, 200))
    return rows


def control_rows() -> list[Row]:
    rows = [
        *(Row("GET", path, "look", None, 200)
          for path in ("/", "/v1/status", "/v1/registries", "/v1/fills", "/v1/blobs", "/v1/images",
                       "/v1/config", "/metrics", "/v1/explain?image=single.test/app:1")),
        Row("GET", "/v1/credentials", "credential", None, 200),
        Row("POST", "/v1/renew", "credential", None, 200, "{}"),
        *(Row("POST", path, "own", None, 400, "{}")
          for path in ("/v1/pin", "/v1/unpin", "/v1/purge", "/v1/warm", "/v1/login")),
    ]  # fmt: skip
    for registry in REGISTRIES:
        ask = json.dumps({"registry": registry})
        # There is no credential here to be had: 404 is for who might have one.
        rows.append(Row("POST", "/v1/credential", "credential", registry, 404, ask))
        rows.append(Row("POST", "/v1/renew", "credential", registry, 404, ask))
    return rows


METRICS_ROWS = [
    Row("GET", "/metrics", "anybody", None, 200),
    Row("GET", "/healthz", "anybody", None, 200),
]


def free_ports(count: int) -> list[int]:
    taken = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in taken]
    for one in taken:
        one.close()
    return ports


@needs_root
class Policy(unittest.TestCase):
    def setUp(self) -> None:
        directory = TemporaryDirectory(prefix="staithe-")
        self.addCleanup(directory.cleanup)
        self.place = Path(directory.name)
        self.place.chmod(0o755)
        self.origin = Origin()
        self.addCleanup(self.origin.close)
        self.image = self.origin.add(make_image("app", [3000], seed=7))
        self.layer = next(reversed(self.image.blobs))
        self.node = Node(self.place / "node", self.origin)
        self.addCleanup(self.node.stop)
        tcp, metrics = free_ports(2)
        self.doors = [f"127.0.0.1:{tcp}", str(self.node.registry_socket)]
        with socket.socket(socket.AF_INET6) as probe:
            try:
                probe.bind(("::1", tcp))
                self.doors.append(f"[::1]:{tcp}")
            except OSError:
                pass  # a machine without IPv6
        self.metrics_door = f"127.0.0.1:{metrics}"
        entry = self.node.config["registry"][0]
        self.node.config["registry"] = [
            {**entry, "name": name, **({"access": self._lists(OWN_LISTS[name])}
                                       if name in OWN_LISTS else {})}
            for name in REGISTRIES
        ]  # fmt: skip
        self.node.configured({
            "listen": {"registry": [f"unix:{d}" if d.startswith("/") else d for d in self.doors],
                       "metrics": self.metrics_door},
            # At debug nothing is answered by the threads at the front.
            "log": {"level": "info"},
        })  # fmt: skip
        self._run_as(USERS["own"])

    def _run_as(self, user: User) -> None:
        """The user may not be able to read where the daemon was built."""
        program = self.place / "staithed"
        shutil.copy(binary("staithed"), program)
        program.chmod(0o755)
        self.node.program = program
        home = self.place / "node"
        home.chmod(0o755)
        os.chown(home, user.uid, user.gid)
        self.node.run_by = ["setpriv", f"--reuid={user.uid}", f"--regid={user.gid}", "--clear-groups",
                            "--pdeathsig=TERM", "--"]  # fmt: skip

    @staticmethod
    def _lists(names: set[str] | None) -> dict[str, list[str]]:
        """As they stand in the file: who is a member of a group, by that."""
        groups = {"member": _DAEMON.pw_gid, "group member": _BIN.pw_gid}
        found = names or set()
        return {
            "users": [str(USERS[name].uid) for name in sorted(found) if name not in groups],
            "groups": [grp.getgrgid(groups[name]).gr_name for name in sorted(found)
                       if name in groups],
        }  # fmt: skip

    def use(self, of_all: set[str] | None) -> None:
        """Has a running daemon take over what [access] says."""
        self.node.config["access"] = self._lists(of_all)
        self.node.config_file.write_text(toml(self.node.config))
        self.node.process.signal(signal.SIGHUP)
        door, question = self.doors[0], ["GET", "/v2/open.test/app/manifests/1", ""]
        wanted = 200 if allowed("other", "pull", "open.test", of_all) else 403
        deadline = time.monotonic() + 20
        while self.ask_as("other", [[door, *question]])[0][0] != wanted:
            self.assertLess(time.monotonic(), deadline, "the reload is not taken over")

    def start(self, of_all: set[str] | None) -> None:
        self.node.config["access"] = self._lists(of_all)
        self.node.start()
        # All that is asked for below is here, through every registry, so that nothing but the policy
        # stands between it and who asks.
        rows = registry_rows(self.image.digest, self.layer)
        for _ in range(3):
            self.ask_as("root", [[self.doors[0], row.method, row.target, ""] for row in rows])
            self.node.wait_until_stored()

    def ask_as(self, name: str, questions: list[list[str]]) -> list[list]:
        user = USERS[name]
        done = subprocess.run(
            ["/usr/bin/python3", "-c", ASKER], input=json.dumps(questions), user=user.uid,
            group=user.gid, extra_groups=[], capture_output=True, text=True, timeout=120, check=True,
        )  # fmt: skip
        return json.loads(done.stdout)

    def metrics(self) -> Scrape:
        return Scrape(self.node.raw_control("GET", "/metrics")[1].decode())

    # ---- the matrix ----------------------------------------------------------------------------

    def judge(self, of_all: set[str] | None) -> int:
        """Gives how many questions were put."""
        of_registries = registry_rows(self.image.digest, self.layer)
        rows = [(door, row) for _ in range(2) for row in of_registries for door in self.doors]
        rows += [(str(self.node.socket), row) for row in control_rows()]
        rows += [(self.metrics_door, row) for row in METRICS_ROWS]
        manifest = self.image.manifest.decode()
        layer = self.image.blobs[self.layer].decode("latin-1")
        for name in USERS:
            answers = self.ask_as(name, [[door, r.method, r.target, r.body] for door, r in rows])
            for (door, row), (status, challenge, body) in zip(rows, answers, strict=True):
                may = allowed(name, row.right, row.registry, of_all)
                with self.subTest(user=name, door=door, row=row, of_all=of_all):
                    self.assertEqual(status, row.status if may else 403, body[:300])
                    self.assertIsNone(challenge, "nobody is ever challenged")
                    if not may and row.method != "HEAD":
                        (error,) = json.loads(body)["errors"]
                        self.assertEqual(error["code"], "DENIED")
                        self.assertRegex(error["message"], r"staithe\.toml|only root and")
                        self.assertNotIn(layer, body)
                        self.assertNotIn(manifest, body)
                    elif may and row.status == 200 and row.method == "GET":
                        if "/blobs/" in row.target:
                            self.assertTrue(body == layer, "other bytes")
                        if "/app/manifests/" in row.target:
                            self.assertTrue(body == manifest, "other bytes")
        return len(rows) * len(USERS)

    def test_every_answer_is_as_the_policy_has_it(self) -> None:
        self.start(OF_ALL[0])
        before = self.metrics().sum("staithe_denied_total")
        asked = self.judge(OF_ALL[0])
        # Once more after a reload, and back.
        self.use(OF_ALL[1])
        asked += self.judge(OF_ALL[1])
        self.use(OF_ALL[0])
        asked += self.judge(OF_ALL[0])
        self.assertGreater(asked, 2000)
        denied = self.metrics().sum("staithe_denied_total") - before
        self.assertGreater(denied, 500)
        print(f"policy: {asked} questions, {denied:.0f} denied", flush=True)

    def test_who_is_in_another_network_is_known_by_a_unix_socket(self) -> None:
        self.start(OF_ALL[0])
        tcp, unix = self.doors[:2]
        target = "/v2/open.test/app/manifests/1"
        for name, status in (("named", 200), ("other", 403)):
            questions = [[unix, "GET", target, ""], [tcp, "GET", target, ""]]
            user = USERS[name]
            # The network is made by root, the question put by the user in it.
            done = subprocess.run(
                ["unshare", "--net", "setpriv", f"--reuid={user.uid}", f"--regid={user.gid}",
                 "--clear-groups", "/usr/bin/python3", "-c", ASKER],
                input=json.dumps(questions), capture_output=True, text=True, timeout=60, check=True,
            )  # fmt: skip
            by_unix, by_tcp = json.loads(done.stdout)
            self.assertEqual(by_unix[0], status)
            self.assertEqual(by_tcp[0], 0, "there is no way")

    def test_a_connection_keeps_no_right_that_a_reload_has_taken(self) -> None:
        self.start(EVERYBODY)
        target = "/v2/open.test/app/manifests/1"
        host, port = self.doors[0].rsplit(":", 1)
        user = USERS["other"]
        source = f"""
import http.client, sys, time
connection = http.client.HTTPConnection({host!r}, {port}, timeout=30)
def ask():
    connection.request("GET", {target!r})
    answer = connection.getresponse()
    answer.read()
    return answer.status
statuses = [ask() for _ in range(10)]
print(*statuses, flush=True)
sys.stdin.readline()
deadline = time.monotonic() + 20
while ask() != 403 and time.monotonic() < deadline:
    pass
print(*[ask() for _ in range(10)], flush=True)
"""
        with subprocess.Popen(
            ["/usr/bin/python3", "-c", source], user=user.uid, group=user.gid, extra_groups=[],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        ) as client:  # fmt: skip
            self.addCleanup(client.kill)
            assert client.stdin and client.stdout
            self.assertEqual(client.stdout.readline().split(), ["200"] * 10)
            self.node.config["access"] = self._lists(RESTRICTED)
            self.node.config_file.write_text(toml(self.node.config))
            self.node.process.signal(signal.SIGHUP)
            client.stdin.write("\n")
            client.stdin.flush()
            self.assertEqual(client.stdout.readline().split(), ["403"] * 10)

    # ---- those who do not stay -----------------------------------------------------------------

    def test_who_leaves_early_gains_nothing(self) -> None:
        self.start(RESTRICTED)
        before, accepted = self.metrics(), self.node.status()["connections"]["accepted"]
        fetched = dict(self.origin.requests)
        user, tries = USERS["other"], 10_000
        request = f"/v2/open.test/app/blobs/{self.layer}"
        done = subprocess.run(
            ["/usr/bin/python3", "-c", LEAVERS, self.doors[0], self.doors[1], request, str(tries)],
            user=user.uid, group=user.gid, extra_groups=[], capture_output=True, text=True,
            timeout=300, check=True,
        )  # fmt: skip
        told = json.loads(done.stdout)
        self.assertEqual(sum(told["tries"].values()), tries)
        # Whoever of them read an answer was refused by it.
        self.assertEqual(set(told["statuses"]) - {"nothing"}, {"403"})
        self.assertFalse(told["content"], "bytes of the blob came")
        self.wait_until_gone(accepted + tries)
        after = self.metrics()
        for result in ("hit", "miss", "collapsed", "stale", "pass"):
            grown = self._grown(before, after, "staithe_requests_total", result=result)
            self.assertEqual(grown, 0, result)
        for source in ("cache", "shared", "upstream"):
            grown = self._grown(before, after, "staithe_bytes_served_total", source=source)
            self.assertEqual(grown, 0, source)
        self.assertEqual(dict(self.origin.requests), fetched, "upstream was asked for a stranger")
        # Every request of them that the daemon read is counted.
        counted = self._grown(before, after, "staithe_requests_total", registry="open.test",
                              result="denied")  # fmt: skip
        denied = {
            reason: self._grown(before, after, "staithe_denied_total", reason=reason)
            for reason in ("user", "unknown")
        }
        self.assertGreaterEqual(denied["user"], told["statuses"]["403"])
        self.assertGreater(denied["unknown"], 0)
        self.assertEqual(counted, sum(denied.values()))
        said = re.findall(r"a user was refused user=(\w+)", self.node.log.read_text())
        self.assertLessEqual(len(said), 6, "sparingly")
        print(f"early leavers: {told} {denied}", flush=True)

    @staticmethod
    def _grown(before: Scrape, after: Scrape, name: str, **labels: str) -> float:
        return after.sum(name, **labels) - before.sum(name, **labels)

    def wait_until_gone(self, accepted: int) -> None:
        """Until so many connections have come to the daemon, and gone."""
        deadline = time.monotonic() + 30
        while True:
            now = self.node.status()["connections"]
            if now["accepted"] >= accepted and now["open"] == 0:
                self.assertEqual(now["accepted"], accepted)
                return
            self.assertLess(time.monotonic(), deadline, now)
            time.sleep(0.02)

    def test_a_socket_that_is_handed_on_is_still_its_makers(self) -> None:
        """The kernel's word is about who made it, whoever reads from it later."""
        self.start(RESTRICTED)
        user = USERS["other"]
        request = f"GET /v2/open.test/app/blobs/{self.layer} HTTP/1.1\r\nHost: localhost\r\n\r\n"
        source = """
import socket, sys
host, port = sys.argv[2].rsplit(":", 1)
to = socket.socket(socket.AF_UNIX)
to.connect(sys.argv[1])
connection = socket.create_connection((host, int(port)))
socket.send_fds(to, [b"x"], [connection.fileno()])
"""
        meeting = self.place / "meeting"
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(meeting))
            meeting.chmod(0o777)
            listener.listen()
            listener.settimeout(30)
            subprocess.run(
                ["/usr/bin/python3", "-c", source, str(meeting), self.doors[0]], user=user.uid,
                group=user.gid, extra_groups=[], timeout=60, check=True,
            )  # fmt: skip
            _, (handed, *_), *_ = socket.recv_fds(listener.accept()[0], 1, 1)
        with socket.socket(fileno=handed) as connection:
            connection.settimeout(30)
            connection.sendall(request.encode())
            answer = connection.recv(4096)
        self.assertTrue(answer.startswith(b"HTTP/1.1 403"), answer)
        self.assertIn(str(user.uid).encode(), answer)


if __name__ == "__main__":
    unittest.main()
