#!/usr/bin/python3
"""No secret of a whole eventful run is found anywhere but where it belongs.

The daemon says as much as it can (trace, in each format of its log) through pulls, renewals,
failures and reloads. Then every secret that the stand-in has issued or holds, and every one that
the operator has in a file, is searched for in all that others may read, in what they get of the
process itself, and in what is left of it when it crashes. The search proves itself on copies.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import resource
import secrets
import shutil
import signal
import socket
import tempfile
import threading
import time
import unittest
from pathlib import Path
from typing import Any
from urllib.parse import quote

from identity_case import (
    APP,
    IdentityTest,
    basic,
    helper_script,
    key_and_certificate,
    new_secret,
    service_principal,
)
from intruder import REFUSED, intrude
from lab import needs_root
from leaks import Leak, Needles, forms
from registry import free_port  # tests/images
from standin.client import Reply, ask

CONTOSO, FABRIKAM, HUB = "contoso.azurecr.io", "fabrikam.azurecr.io", "docker.io"
ECR = "123456789012.dkr.ecr.eu-west-1.amazonaws.com"
QUESTIONS = ("/v1/status", "/v1/registries", "/v1/fills", "/v1/blobs", "/v1/credentials",
             f"/v1/explain?image={CONTOSO}/busybox:1", "/metrics")  # fmt: skip
LOG = "staithed.log"
FORMATS = ("text", "journal", "json")
STRANGER = 54333


class Journal:
    """What stands behind the socket of systemd's journal."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(mode=0o755)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(directory / "socket"))
        self._entries: list[bytes] = []
        self._thread = threading.Thread(target=self._receive, daemon=True)
        self._thread.start()

    def _receive(self) -> None:
        while entry := self._socket.recv(1 << 20):
            self._entries.append(entry)

    def close(self) -> list[bytes]:
        """All that came."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as last:
            last.connect(self._socket.getsockname())
            last.send(b"")
        self._thread.join()
        self._socket.close()
        return self._entries


@needs_root
class PlantedSecrets(IdentityTest):
    def setUp(self) -> None:
        super().setUp()
        self.own: list[tuple[str, str]] = []
        self.answers: dict[str, Reply] = {}
        self.journal = Journal(self.lab.directory / "journal")
        self._accounts()
        self._configure()

    def test_none_is_found(self) -> None:
        self.staithed.start()
        self._pull_everything()
        self._clients_send_their_own()
        self._renew()
        self._fail()
        self._reload()
        places = self._places()
        # With what the index has not yet taken over from its log.
        copy = self.lab.directory / "cache while it runs"
        shutil.copytree(self.staithed.cache, copy, ignore=_sockets)
        self.assertTrue((copy / "index.db-wal").is_file())
        self._attack(places)
        self._crash()
        places |= {log.name: log.read_bytes() for log in self.lab.logs()}
        entries = self.journal.close()
        places["the journal"] = b"\n".join(entries)
        # It has said what it says to nobody else, in each way.
        self.assertGreater(places[LOG].count(b'"level":"debug"'), 50)
        self.assertGreater(len(re.findall(rb"^\S+ debug ", places[LOG], re.M)), 50)
        self.assertGreater(sum(b"PRIORITY=7" in entry for entry in entries), 50)

        known = [(found["kind"], found["text"]) for found in self.azure.secrets()] + self.own
        self._assert_worth_searching(known)
        needles = Needles(known)
        self._assert_planted_ones_are_found(needles, dict(known), places)
        leaks = [leak for name, content in places.items() for leak in needles.search(name, content)]
        leaks += needles.search_tree(self.staithed.cache) + needles.search_tree(copy)
        self.assertFalse(leaks, "found:\n" + "\n".join(sorted({str(leak) for leak in leaks})))

    def planted(self, kind: str, mark: str = "pw") -> str:
        secret = new_secret(mark)
        self.own.append((kind, secret))
        return secret

    def _accounts(self) -> None:
        """One of each kind, so that each kind's way through the daemon is walked."""
        key, certificate = key_and_certificate()
        self.own.append(("certificate's key", key))
        self.certificate_file = self.file("principal.pem", key + certificate)
        self.principal(certificates=[certificate])
        # A short one, as people choose them: no rule for what looks like a token catches it.
        self.hub_secret = secrets.token_urlsafe(9)
        self.own.append(("hub password", self.hub_secret))
        self.ecr_secret = self.planted("ecr password")
        self.scoped_secret = self.planted("scoped token password")
        self.azure.set(
            accounts=[
                {"registry": "hub", "user": "me", "secret": self.hub_secret},
                {"registry": "ecr", "user": "AWS", "secret": self.ecr_secret},
            ],
            public=[],
            scoped_tokens=[
                {"registry": "contoso", "name": "ci", "scopes": {"team-a/*": ["content/read"]},
                 "password2": {"value": self.scoped_secret}},
            ],
        )  # fmt: skip

    def _configure(self) -> None:
        self.trust_entra()
        self.other_registry(ECR, self.addresses["ecr"], identity="ecr")
        staithed = self.staithed
        staithed.registry(FABRIKAM)["identity"] = "robot"
        staithed.registry(CONTOSO)["identity_for"] = [{"prefix": "team-a/", "identity": "team-a"}]
        staithed.registry(HUB).update(identity="hub", token_hosts=[self.auth_host])
        programs = self.lab.directory / "programs"
        programs.mkdir()
        self.helper_notes = self.files / "notes"
        answer = {"ServerURL": ECR, "Username": "AWS", "Secret": self.ecr_secret}
        file = Path(self.file("answer.json", json.dumps(answer)))
        program = programs / "docker-credential-xyz"
        program.write_text(helper_script(file, self.helper_notes))
        program.chmod(0o755)
        staithed.environment["PATH"] = f"{programs}:{os.environ['PATH']}"
        staithed.in_place_of["/run/systemd/journal"] = self.lab.directory / "journal"
        self.metrics = f"127.0.0.1:{free_port()}"
        wrong = self.planted("wrong password")
        staithed.configured(
            {
                "listen": {"metrics": self.metrics, "status_page": True},
                "log": {"level": "trace", "format": "json"},
                "limits": {"upstream_stall": "2s", "upstream_first_byte": "2s"},
                "identity": {
                    "robot": service_principal(certificate_file=self.certificate_file),
                    "team-a": {
                        "kind": "basic",
                        "username": "ci",
                        "password_file": self.file("wrong", wrong),
                        "password2_file": self.file("right", self.scoped_secret),
                    },
                    "hub": {
                        "kind": "basic",
                        "username": "me",
                        "password_file": self.file("hub", self.hub_secret),
                    },
                    "ecr": {"kind": "helper", "helper": "xyz"},
                },
            }
        )

    def get(self, registry: str, repository: str, tag: str = "1", **headers: str) -> Reply:
        target = f"/v2/{registry}/{repository}/manifests/{tag}"
        return self._get(target, **headers)

    def _get(self, target: str, **headers: str) -> Reply:
        reply = self.staithed.get(target, **headers)
        name = f"answer {len(self.answers)}, {reply.status} to {target}"
        self.answers[name] = reply
        return reply

    def _pull_everything(self) -> None:
        self.assert_pulls(f"{CONTOSO}/busybox:1", "contoso/busybox:1")
        self.assert_pulls(f"{CONTOSO}/team-a/private:1", "contoso/team-a/private:1")
        self.assert_pulls(f"{FABRIKAM}/busybox:1", "fabrikam/busybox:1")
        self.assert_pulls(f"{HUB}/library/busybox:1", "hub/library/busybox:1")
        self.assert_pulls(f"{ECR}/library/multi:1", "hub/library/multi:1")

    def _clients_send_their_own(self) -> None:
        mine = self.planted("client's own password")
        self.get(CONTOSO, "busybox", Authorization=basic("me", mine))
        self.get(CONTOSO, "unknown", Authorization=f"Bearer {mine}", Cookie=f"session={mine}")

    def _renew(self) -> None:
        self.renew()
        for kind in ("access", "refresh"):
            self.azure.revoke(kind)
            self.get(CONTOSO, "debian")
            self.get(FABRIKAM, "busybox")
            self.get(HUB, "library/multi")

    def _fail(self) -> None:
        """Each step of the chain fails in a few ways, at a daemon that has nothing in hand."""
        for number, rules in enumerate(self._failures()):
            self.staithed.stop()
            self.staithed.configured({"log": {"format": FORMATS[number % len(FORMATS)]}})
            self.azure.faults(*rules)
            self.staithed.start()
            for registry, repository, tag in (
                (CONTOSO, "multi", "2"),
                (CONTOSO, "team-a/private", "1"),
                (FABRIKAM, "busybox", "1"),
                (HUB, "library/multi", "2"),
                (ECR, "library/multi", "2"),
            ):
                self.get(registry, repository, tag)
            # Of a blob that is not in the cache, so that it has to be fetched.
            (layer,) = self.lab.image("contoso/debian:1")["layers"]
            target = f"/v2/{CONTOSO}/debian/blobs/{layer['digest']}"
            self._get(target)
            self._ask_all()
        self.azure.faults()
        self.staithed.stop()
        self.staithed.configured({"log": {"format": "json"}})
        self.staithed.start()

    def _failures(self) -> list[list[dict[str, Any]]]:
        """Servers that quote what they were sent, and a redirect with a signature in it."""
        signed = self.planted("signature of a link", "sig")
        elsewhere = f"https://elsewhere.example/data?se=2030&sig={quote(signed, safe='')}"

        def refusal(status: int, role: str, path: str = "") -> dict[str, Any]:
            return {"role": role, "path": path, "action": {"status": status, "echo": True}}

        return [
            # First, while there is something that has to be fetched whole.
            [refusal(403, role, "/(manifests|blobs)/") for role in ("acr", "hub", "other")],
            [refusal(500, role, "/(manifests|blobs)/") for role in ("acr", "hub", "other")],
            [refusal(400, role, "/(manifests|blobs)/") for role in ("acr", "hub", "other")],
            # 400, because the daemon is patient with a metadata service that has passing trouble.
            [refusal(400, "imds"), refusal(401, "entra"), refusal(401, "auth")],
            [refusal(401, "acr", "exchange"), refusal(401, "acr", "oauth2/token")],
            [refusal(403, "acr", "oauth2/token"), refusal(403, "auth")],
            [refusal(403, "acr", "^/v2/"), refusal(403, "other"), refusal(500, "hub")],
            [refusal(401, "acr", "^/v2/"), refusal(401, "other")],
            [{"path": "/blobs/", "action": {"redirect": elsewhere}}],
            [refusal(403, "storage")],
            [{"role": "storage", "times": 2, "action": {"reset": 100}}],
        ]

    def _reload(self) -> None:
        """With a good file, and with bad ones that have a secret in them."""
        self._hang_up(b"configuration reloaded")
        written = self.planted("password in the configuration")
        good = self.staithed.config_file.read_text()
        for line in (f"password = {json.dumps(written)}", f'password = "{written}', written):
            self.staithed.config_file.write_text(f"{good}\n[identity.bad]\n{line}\n")
            self._hang_up(b"configuration not reloaded")
        self.staithed.config_file.write_text(good)
        self.assertEqual(self.get(CONTOSO, "busybox").status, 200)

    def _hang_up(self, expected: bytes) -> None:
        """SIGHUP, until the log has one more line of that kind."""
        before = self.staithed.log.read_bytes().count(expected)
        self.staithed.process.signal(signal.SIGHUP)
        deadline = time.monotonic() + 10
        while self.staithed.log.read_bytes().count(expected) == before:
            self.assertLess(time.monotonic(), deadline, f"no {expected!r} in the log")
            time.sleep(0.02)

    def _ask_all(self) -> dict[str, bytes]:
        found = {}
        for question in QUESTIONS:
            status, body = self.staithed.raw_control("GET", question)
            found[f"GET {question} ({status})"] = body
        for page in ("/", "/metrics", "/unknown"):
            reply = ask("GET", f"http://{self.metrics}{page}", {})
            found[f"GET {page} at the metrics' address ({reply.status})"] = reply.body
        return found

    def _attack(self, places: dict[str, bytes]) -> None:
        """While it holds them all, somebody else tries to look into it."""
        pid = self.staithed.process.pid
        outcome, loot = intrude(pid, STRANGER)
        self.assertEqual(outcome, REFUSED)
        places["what another user got of the process"] = loot
        locked = re.search(r"VmLck:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
        assert locked
        self.assertGreaterEqual(int(locked[1]), 128)

    def _crash(self) -> None:
        """With leave to write a core of any size, where root may give that: not everywhere."""
        pid = self.staithed.process.pid
        with contextlib.suppress(PermissionError):
            resource.prlimit(pid, resource.RLIMIT_CORE, (resource.RLIM_INFINITY,) * 2)
        self.staithed.process.signal(signal.SIGSEGV)
        ended = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        self.assertEqual((ended.si_code, ended.si_status), (os.CLD_KILLED, signal.SIGSEGV))
        self.assertEqual(self.staithed.process.wait(10), -signal.SIGSEGV)

    def _places(self) -> dict[str, bytes]:
        """Everything that someone besides the daemon can read, but the cache and the log."""
        places = self._ask_all()
        for words in (("status",), ("status", "--json"), ("config",), ("doctor",),
                      ("explain", f"{CONTOSO}/multi:2"), ("warm", f"{CONTOSO}/multi:2")):  # fmt: skip
            done = self.staithed.command(*words)
            places[f"staithe {' '.join(words)}"] = (done.stdout + done.stderr).encode()
        for name, reply in self.answers.items():
            places[name] = reply.headers.as_bytes() + reply.body
        for process in [self.staithed.process, *self.lab.processes]:
            for file in ("cmdline", "environ", "comm", "maps", "status"):
                content = Path(f"/proc/{process.pid}/{file}").read_bytes()
                places[f"{process.name}'s {file}"] = content
        places["the helper's arguments and environment"] = self.helper_notes.read_bytes()
        places["the configuration"] = self.staithed.config_file.read_bytes()
        return places

    def _assert_worth_searching(self, known: list[tuple[str, str]]) -> None:
        kinds = {kind for kind, _ in known}
        expected = {"entra token", "refresh token", "access token", "link signature", "private key",
                    "hub password", "certificate's key", "client's own password"}  # fmt: skip
        self.assertLessEqual(expected, kinds)
        failures = [reply for reply in self.answers.values() if reply.status >= 400]
        self.assertGreater(len(failures), 20)

    def _assert_planted_ones_are_found(
        self, needles: Needles, known: dict[str, str], places: dict[str, bytes]
    ) -> None:
        """`known`: the last one of each kind. In copies; nothing is planted for real."""
        names = ("the configuration", "GET /v1/status (200)", "staithed's environ")
        # Where something is found already, one more would prove nothing; then the test fails.
        clean = [name for name in names if not needles.search(name, places[name])]
        self.assertTrue(clean)
        for kind, text in known.items():
            for form, needle in forms(text):
                for name in clean:
                    planted = places[name] + b'"' + needle + b'"'
                    self.assertTrue(needles.search(name, planted), f"{kind} {form} in {name}")
        with tempfile.TemporaryDirectory() as scratch:
            copy = Path(scratch) / "cache"
            shutil.copytree(self.staithed.cache, copy, ignore=_sockets)
            victim = next(path for path in sorted(copy.rglob("*")) if path.is_file())
            with open(victim, "ab") as file:
                file.write(known["refresh token"].encode())
            self.assertEqual({leak.kind for leak in needles.search_tree(copy)}, {"refresh token"})


class Search(unittest.TestCase):
    """The search itself, on what a careless program might write."""

    SECRET = "correct horse+battery/staple=%"
    JWT = "eyJhbGciOiJIUzI1NiJ9." + "cGF5bG9hZA" * 20 + "." + "c2lnbmF0dXJl" * 4

    def found(self, content: str, secret: str = SECRET) -> list[Leak]:
        return Needles([("secret", secret)]).search("here", content.encode())

    def test_finds_it_in_every_form(self) -> None:
        secret = self.SECRET
        for content in (
            f"password {secret} refused",
            f"grant_type=password&password={quote(secret, safe='')}",
            json.dumps({"message": f'"{secret}"'}),
            secret.encode().hex(),
            base64.b64encode(secret.encode()).decode(),
            basic("", secret), basic("a", secret), basic("ab", secret), basic("abc", secret),
            base64.urlsafe_b64encode(f"user:{secret}:more".encode()).decode(),
            secret[:24] + "...",
        ):  # fmt: skip
            self.assertTrue(self.found(content), content)

    def test_finds_parts_of_tokens_and_lines_of_keys(self) -> None:
        _, payload, signature = self.JWT.split(".")
        for content in (
            self.JWT,
            payload,
            signature,
            self.JWT[:-4],
            self.JWT[:60],
            f"eyJ.{payload[100:160]}",
        ):
            self.assertTrue(self.found(content, self.JWT), content)
        key = key_and_certificate()[0]
        for content in (key, key.replace("\n", ""), key.split("\n")[3]):
            self.assertTrue(self.found(content, key))

    def test_finds_nothing_where_nothing_is(self) -> None:
        head = self.JWT.partition(".")[0]
        for content in ("", "correct horse", "password refused", head, f"{head}.e30."):
            self.assertEqual(self.found(content) + self.found(content, self.JWT), [])

    def test_finds_it_in_names_and_files(self) -> None:
        with tempfile.TemporaryDirectory() as scratch:
            root = Path(scratch)
            needles = Needles([("name", "in-the-name-of-a-file"), ("text", "in-the-text-of-one")])
            (root / "below").mkdir()
            self.assertEqual(needles.search_tree(root), [])
            (root / "below/in-the-name-of-a-file.tmp").write_bytes(b"\0in-the-text-of-one\xff")
            self.assertEqual({leak.kind for leak in needles.search_tree(root)}, {"name", "text"})

    def test_refuses_to_look_for_what_is_too_short(self) -> None:
        with self.assertRaises(ValueError):
            Needles([("pin", "1234")])


def _sockets(directory: str, names: list[str]) -> list[str]:
    return [name for name in names if (Path(directory) / name).is_socket()]


if __name__ == "__main__":
    unittest.main()
