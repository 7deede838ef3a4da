#!/usr/bin/python3
"""The real clients with docker-credential-staithe: the daemon's registries, the user's own, none.

The daemon here is only a control socket that manages one registry, so that what is asked of it, and
that a client's own password never reaches it, can be seen."""

from __future__ import annotations

import base64
import json
import os
import random
import socketserver
import subprocess
import tempfile
import threading
import time
import unittest
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import lab  # noqa: F401, I001  (the path of the modules below)
from clients import PATH, ClientFailed, run
from staithed import binary

AUTHORIZATION = "Basic " + base64.b64encode(b"ann:the-password").decode()
NO_CREDENTIAL = {"errors": [{"code": "NOT_MANAGED", "message": "no credential for this registry"}]}


class Answering(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments: object) -> None:
        pass

    def address_string(self) -> str:
        return "client"

    def say(self, status: int, body: object, headers: dict[str, str] | None = None) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


class Registry(Answering):
    """Knows one user, and one repository's tags."""

    def do_GET(self) -> None:
        if self.headers.get("Authorization") == AUTHORIZATION:
            self.say(200, {"name": "app", "tags": ["1"]})
        else:
            self.say(401, {}, {"WWW-Authenticate": 'Basic realm="registry"'})


class ControlSocket(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True
    managed = ""

    def __init__(self, path: Path) -> None:
        self.asked: list[str] = []
        super().__init__(str(path), Control)

    def handle_error(self, request: object, client_address: object) -> None:
        pass  # a helper that was killed takes no answer


class Control(Answering):
    server: ControlSocket

    def do_POST(self) -> None:
        text = self.rfile.read(int(self.headers["Content-Length"])).decode()
        self.server.asked.append(text)
        self.close_connection = True
        if json.loads(text)["registry"] != self.server.managed:
            return self.say(404, NO_CREDENTIAL)
        return self.say(
            200,
            {
                "registry": self.server.managed,
                "username": "ann",
                "password": "the-password",
                "identity_token": False,
                "renewable": True,
                "expires_in_seconds": 9000,
            },
        )


class Helpers(unittest.TestCase):
    def setUp(self) -> None:
        keep = tempfile.TemporaryDirectory()
        self.addCleanup(keep.cleanup)
        self.directory = Path(keep.name)
        self.managed, self.other = (
            self.serve(ThreadingHTTPServer(("127.0.0.1", 0), Registry)) for _ in "ab"
        )
        self.control = ControlSocket(self.directory / "control.sock")
        self.control.managed = self.managed
        self.serve(self.control)
        helper = binary("docker-credential-staithe")
        auth = self.directory / "auth.json"
        helpers = {host: "staithe" for host in (self.managed, self.other)}
        auth.write_text(json.dumps({"credHelpers": helpers}))
        self.helper = str(helper)
        self.env = {
            "PATH": f"{Path(helper).parent}:{PATH}",
            "REGISTRY_AUTH_FILE": str(auth),
            "STAITHE_SOCKET": str(self.directory / "control.sock"),
            "STATE_DIRECTORY": str(self.directory / "state"),
            # systemd-creds seals with a key of this test's own.
            "SYSTEMD_CREDENTIAL_SECRET": str(self.directory / "key"),
        }

    def serve(self, server: socketserver.BaseServer) -> str:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self.addCleanup(server.server_close)
        self.addCleanup(server.shutdown)
        return f"localhost:{server.server_address[1]}"

    def tags(self, host: str) -> list[str]:
        text = run(
            ["skopeo", "list-tags", "--tls-verify=false", f"docker://{host}/app"], env=self.env
        )
        return json.loads(text)["Tags"]

    def ask(self, action: str, text: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.helper, action],
            input=text,
            env={**os.environ, **self.env},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def test_skopeo_pulls_with_what_the_daemon_gives_and_else_without(self) -> None:
        self.assertEqual(self.tags(self.managed), ["1"])
        with self.assertRaisesRegex(ClientFailed, "unauthorized"):
            self.tags(self.other)

    def test_podman_logs_in_elsewhere_and_out_again(self) -> None:
        options = ["--tls-verify=false", "-u", "ann", "-p", "the-password"]
        run(["podman", "login", *options, self.other], env=self.env)
        self.assertEqual(self.tags(self.other), ["1"])
        self.assertNotIn("the-password", "".join(self.control.asked))
        run(["podman", "logout", self.other], env=self.env)
        with self.assertRaisesRegex(ClientFailed, "unauthorized"):
            self.tags(self.other)
        run(["podman", "login", *options, self.managed], env=self.env)
        run(["podman", "logout", self.managed], env=self.env)
        self.assertEqual(self.tags(self.managed), ["1"], "the daemon's registry needs no login")

    def test_what_is_stored_is_not_lost_by_helpers_at_once_or_killed(self) -> None:
        def login(name: str) -> str:
            return json.dumps({"ServerURL": name, "Username": "ann", "Secret": "s" * 4000})

        def begin(name: str) -> subprocess.Popen[str]:
            child = subprocess.Popen(
                [self.helper, "store"],
                stdin=subprocess.PIPE,
                env={**os.environ, **self.env},
                text=True,
            )
            assert child.stdin
            child.stdin.write(login(name))
            child.stdin.close()
            return child

        names = [f"r{i}.example" for i in range(12)]
        for child in [begin(name) for name in names]:
            self.assertEqual(child.wait(timeout=60), 0)
        dice = random.Random(20)
        for _ in range(30):
            child = begin("killed.example")
            time.sleep(dice.uniform(0, 0.03))
            child.kill()
            child.wait()
        self.assertEqual(self.ask("store", login("last.example")).returncode, 0)
        listed = json.loads(self.ask("list", "unused").stdout)
        self.assertLessEqual({f"https://{name}" for name in [*names, "last.example"]}, set(listed))
        for url in listed:
            self.assertEqual(json.loads(self.ask("get", url).stdout)["Secret"], "s" * 4000)
        names_left = sorted(
            path.name for path in (self.directory / "state/staithe-docker").iterdir()
        )
        self.assertEqual(names_left, ["docker-logins", "docker-logins.lock"])


if __name__ == "__main__":
    unittest.main()
