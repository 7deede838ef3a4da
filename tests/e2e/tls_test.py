#!/usr/bin/python3
"""listen.tls with what `staithe setup --tls` makes: who trusts it pulls, who does not is refused."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import ssl
import subprocess
import time
import unittest
from collections.abc import Callable
from pathlib import Path
from typing import Any

from clients import ClientFailed, run
from lab import LabTest, needs_root
from registry import free_port  # tests/images
from staithed import binary

REGISTRY = "contoso.azurecr.io"
IMAGE = f"{REGISTRY}/busybox:1"
TRUTH = "contoso/busybox:1"
STRANGER = 54323
PROGRAMS = ("dockerd", "containerd", "podman", "skopeo")
PORT = "5443"  # where setup puts it

# Asks as another user: port, file of authorities, path.
CLIENT = """
import http.client, ssl, sys
port, authorities, path = sys.argv[1:]
context = ssl.create_default_context(cafile=authorities)
connection = http.client.HTTPSConnection("localhost", int(port), timeout=20, context=context)
connection.request("GET", path)
answer = connection.getresponse()
print(answer.status)
print(answer.read().decode(errors="replace"))
"""


class Tree:
    """A machine's files, as far as setup looks at them, below a directory of the test."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for name in PROGRAMS:
            program = root / "usr/bin" / name
            program.parent.mkdir(parents=True, exist_ok=True)
            program.write_text("#!/bin/sh\n")
            program.chmod(0o755)
        config = root / "etc/staithe/staithe.toml"
        config.parent.mkdir(parents=True)
        config.write_text('# of this node\n[log]\nlevel = "info"\n')

    def setup(self, *options: str) -> str:
        return run([binary("staithe"), "setup", "--tls", "--root", self.root, *options])

    def files(self) -> dict[str, tuple[int, bytes]]:
        return {
            str(path.relative_to(self.root)): (path.stat().st_mode, path.read_bytes())
            for path in sorted(self.root.rglob("*"))
            if path.is_file()
        }

    def at(self, path: str) -> Path:
        return self.root / path


class TlsTest(LabTest):
    def setUp(self) -> None:
        super().setUp()
        self.tree = Tree(self.lab.directory / "tree")
        self.staithed = self.lab.staithed
        self.port = free_port()
        self.address = f"localhost:{self.port}"

    def start(self) -> None:
        self.tree.setup("--apply")
        self.key = self.lab.directory / "tls.pem"
        shutil.copy(self.tree.at("etc/staithe/tls/localhost.pem"), self.key)
        self.authority = self.lab.directory / "ca.crt"
        shutil.copy(self.tree.at("etc/staithe/tls/ca.crt"), self.authority)
        listen = {"tls": [f"127.0.0.1:{self.port}"], "tls_file": str(self.key)}
        self.staithed.configured({"listen": listen}).start()

    def trusting(self, client: str) -> Path:
        """What setup has written for a client, under the port of this test."""
        found = self.tree.at(f"etc/{client}/certs.d/localhost:{PORT}")
        here = self.lab.directory / f"{client}-certs.d" / self.address
        shutil.copytree(found, here, dirs_exist_ok=True)
        return here

    def served(self) -> bytes:
        """The certificate that a client is shown."""
        context = ssl.create_default_context(cafile=self.authority)
        context.check_hostname = True
        with socket.create_connection(("127.0.0.1", self.port), timeout=20) as plain:
            with context.wrap_socket(plain, server_hostname="localhost") as connection:
                return connection.getpeercert(binary_form=True)

    def raw(self, text: bytes) -> bytes:
        context = ssl.create_default_context(cafile=self.authority)
        with socket.create_connection(("127.0.0.1", self.port), timeout=20) as plain:
            with context.wrap_socket(plain, server_hostname="127.0.0.1") as connection:
                connection.sendall(text)
                found = b""
                while piece := connection.recv(65536):
                    found += piece
                return found


class Setup(TlsTest):
    def test_it_shows_writes_and_takes_back(self) -> None:
        before = self.tree.files()
        shown = self.tree.setup()
        self.assertEqual(self.tree.files(), before, "a plan writes nothing")
        self.assertIn("etc/staithe/tls/localhost.pem", shown)
        self.assertIn("BEGIN PRIVATE KEY", shown)
        applied = self.tree.setup("--apply")
        key = self.tree.at("etc/staithe/tls/localhost.pem")
        self.assertEqual(key.stat().st_mode & 0o777, 0o600)
        for line in key.read_text().splitlines():
            if len(line) >= 32 and not line.startswith("-"):
                self.assertNotIn(line, applied, "no key is ever shown")
        for client in ("docker", "containerd", "containers"):
            for host in ("localhost", "127.0.0.1"):
                trusted = self.tree.at(f"etc/{client}/certs.d/{host}:{PORT}/ca.crt")
                self.assertIn("BEGIN CERTIFICATE", trusted.read_text())
                self.assertNotIn("PRIVATE", trusted.read_text())
        after = self.tree.files()
        self.assertIn("say already what they have to", self.tree.setup("--apply"))
        self.assertEqual(self.tree.files(), after)
        self.tree.setup("--undo")
        self.assertEqual(self.tree.files(), before)
        self.assertFalse(self.tree.at("etc/staithe/tls").exists())

    def test_the_authority_speaks_for_this_machine_alone(self) -> None:
        self.tree.setup("--apply")
        authority = self.tree.at("etc/staithe/tls/ca.crt")
        text = run(["openssl", "x509", "-in", authority, "-noout", "-text"])
        self.assertIn("CA:TRUE, pathlen:0", text)
        self.assertIn("X509v3 Name Constraints: critical", text)
        for name in ("DNS:localhost", "IP:127.0.0.0/255.0.0.0"):
            self.assertIn(name, text)
        leaf = self.tree.at("etc/staithe/tls/localhost.pem")
        run(["openssl", "verify", "-x509_strict", "-purpose", "sslserver", "-CAfile", authority,
             leaf])  # fmt: skip


class Pulls(TlsTest):
    def test_skopeo(self) -> None:
        self.start()
        reference = f"docker://{self.address}/{IMAGE}"
        target = self.lab.directory / "copy"
        with self.assertRaises(ClientFailed) as refused:
            run(["skopeo", "copy", reference, f"dir:{target}"])
        self.assertIn("certificate", str(refused.exception))
        trust = self.trusting("containers")
        run(["skopeo", "copy", "--src-cert-dir", trust, "--preserve-digests", reference,
             f"dir:{target}"])  # fmt: skip
        manifest = json.loads((target / "manifest.json").read_bytes())
        for layer in manifest["layers"]:
            hexed = layer["digest"].removeprefix("sha256:")
            truth = self.lab.origin_file(layer["digest"]).read_bytes()
            self.assert_bytes((target / hexed).read_bytes(), truth)

    @needs_root
    def test_podman(self) -> None:
        self.start()
        podman = self.lab.podman("unused.example", "unused.example")
        reference = f"{self.address}/{IMAGE}"
        with self.assertRaises(ClientFailed) as refused:
            podman.podman("pull", "--quiet", "--tls-verify=true", reference)
        self.assertIn("certificate", str(refused.exception))
        trust = self.trusting("containers")
        podman.podman("pull", "--quiet", "--tls-verify=true", "--cert-dir", str(trust), reference)
        digest = podman.podman("image", "inspect", reference, "--format", "{{.Digest}}").strip()
        self.assertEqual(digest, self.lab.digest(TRUTH))

    @needs_root
    def test_containerd(self) -> None:
        self.start()
        containerd = self.lab.containerd()
        reference = f"{self.address}/{IMAGE}"
        # With nothing said about this host it asks plainly as well, of a loopback address.
        untrusting = containerd.hosts / self.address
        containerd.mirror(self.address, f"https://{self.address}")
        with self.assertRaises(ClientFailed) as refused:
            containerd.pull(reference)
        self.assertIn("certificate", str(refused.exception))
        trusting = self.trusting("containerd")
        text = (trusting / "hosts.toml").read_text().replace(f":{PORT}", f":{self.port}")
        shutil.copy(trusting / "ca.crt", untrusting)
        (untrusting / "hosts.toml").write_text(
            text.replace(f"/etc/containerd/certs.d/{self.address}", str(untrusting))
        )
        self.assertEqual(containerd.pull(reference), self.lab.digest(TRUTH))

    @needs_root
    def test_containerd_by_a_mirror(self) -> None:
        self.start()
        containerd = self.lab.containerd()
        directory = containerd.hosts / REGISTRY
        directory.mkdir(parents=True)
        host = f'server = "https://{self.address}"\n[host."https://{self.address}"]\n'
        (directory / "hosts.toml").write_text(
            f'{host}  capabilities = ["pull", "resolve"]\n  ca = "{self.authority}"\n'
        )
        self.assertEqual(containerd.pull(IMAGE), self.lab.digest(TRUTH))


    @needs_root
    def test_dockerd_by_a_mirror_and_by_the_address(self) -> None:
        self.start()
        trust = self.trusting("docker").parent
        dockerd = self.lab.dockerd(mirrors=[f"https://{self.address}"], certificates=trust)
        self.assertEqual(dockerd.pull("busybox:1"), self.lab.digest("hub/library/busybox:1"))
        dockerd.forget("busybox:1")
        self.assertEqual(dockerd.pull(f"{self.address}/{IMAGE}"), self.lab.digest(TRUTH))
        status = self.staithed.status()
        self.assertGreater(status["tls"]["handshakes"], 0)
        self.assertEqual(status["tls"]["failed"], 0)
        self.assertEqual(status["traffic"]["errors"], 0)


class Told(TlsTest):
    """The certificate's end and what is wrong with its file, before clients find out."""

    def doctor(self) -> dict[str, list[dict[str, Any]]]:
        command = self.staithed.command_line(
            "doctor", "--json", "--root", str(self.lab.directory), "--config",
            str(self.staithed.config_file),
        )  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, timeout=90, check=False)
        steps: dict[str, list[dict[str, Any]]] = {}
        for line in map(json.loads, done.stdout.splitlines()):
            if line["kind"] == "step":
                steps.setdefault(line["step"], []).append(line)
        return steps

    def certificate_of(self, days: int) -> None:
        certificate = self.lab.directory / "made.crt"
        run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
             "-nodes", "-days", str(days), "-subj", "/CN=localhost", "-addext",
             "subjectAltName=DNS:localhost", "-keyout", self.key, "-out", certificate])  # fmt: skip
        self.key.write_text(self.key.read_text() + certificate.read_text())
        shutil.copy(certificate, self.authority)

    def reload(self) -> None:
        run(self.staithed.command_line("reload"))

    def wait_for_status(self, key: str, wanted: Callable[[Any], bool]) -> None:
        deadline = time.monotonic() + 20
        while not wanted(self.staithed.status()["tls"][key]):
            self.assertLess(time.monotonic(), deadline, self.staithed.status()["tls"])
            time.sleep(0.02)

    def test_status_metrics_and_doctor(self) -> None:
        self.start()
        self.served()
        # A client of TLS 1.3 has finished before its last word has been read.
        self.wait_for_status("handshakes", lambda count: count >= 1)
        tls = self.staithed.status()["tls"]
        self.assertGreater(tls["expires_in_seconds"], 800 * 86400)
        self.assertEqual((tls["near"], tls["fault"]), (False, None))
        self.assertIn("TLS certificate valid for 82", run(self.staithed.command_line("status")))
        text = self.staithed.raw_control("GET", "/metrics")[1].decode()
        self.assertRegex(text, r"\nstaithe_tls_certificate_expiry_seconds 7\d{7}\n")
        steps = self.doctor()
        self.assertEqual([step["state"] for step in steps["tls"]], ["ok"])
        listeners = {step["subject"]: step["state"] for step in steps["listener"]}
        self.assertEqual(listeners[f"tls:127.0.0.1:{self.port}"], "ok", steps["listener"])

        self.certificate_of(days=20)
        (step,) = self.doctor()["tls"]
        self.assertEqual(step["state"], "warning")
        self.assertIn("staithe setup --tls --apply", step["mend"])
        self.reload()
        self.wait_for_status("near", bool)

        self.key.write_text("not a certificate")
        (step,) = self.doctor()["tls"]
        self.assertEqual(step["state"], "failed")
        self.assertIn("staithe setup --tls --apply", step["mend"])
        self.reload()
        self.wait_for_status("fault", bool)
        self.assertIn("not reloaded: listen.tls_file", run(self.staithed.command_line("status")))
        self.served()  # As before: what has been read stays.

    def test_doctor_looks_at_the_file_where_the_daemon_does_not_run(self) -> None:
        self.start()
        self.staithed.stop()
        self.key.write_text("not a certificate")
        (step,) = self.doctor()["tls"]
        self.assertEqual(step["state"], "failed")
        self.assertIn("staithe setup --tls --apply", step["mend"])


class TheSameRules(TlsTest):
    def test_requests_are_judged_as_those_without_tls(self) -> None:
        self.start()
        head = f"GET /v2/{REGISTRY}/busybox/manifests/1 HTTP/1.1\r\nConnection: close\r\n".encode()
        self.assertTrue(self.raw(head + b"Host: localhost\r\n\r\n").startswith(b"HTTP/1.1 200 "))
        self.assertTrue(self.raw(head + b"Host: evil.example\r\n\r\n").startswith(b"HTTP/1.1 403 "))
        self.assertTrue(self.raw(head + b"\r\n").startswith(b"HTTP/1.1 400 "))
        two = b"Host: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
        self.assertTrue(self.raw(head + two).startswith(b"HTTP/1.1 400 "))
        page = b"Host: localhost\r\nOrigin: https://evil.example\r\n\r\n"
        self.assertTrue(self.raw(head + page).startswith(b"HTTP/1.1 403 "))
        self.assertIn(f"tls:127.0.0.1:{self.port}", self.staithed.status()["listen"])

    @needs_root
    def test_the_kernel_says_who_calls(self) -> None:
        self.staithed.configured({"access": {"users": ["root"]}})
        self.start()
        self.lab.directory.chmod(0o755)
        self.authority.chmod(0o644)
        for uid, status in ((0, "200"), (STRANGER, "403")):
            done = subprocess.run(
                ["/usr/bin/python3", "-c", CLIENT, str(self.port), str(self.authority),
                 f"/v2/{REGISTRY}/busybox/manifests/1"],
                user=uid, group=uid, extra_groups=[], capture_output=True, text=True, timeout=30,
                check=True,
            )  # fmt: skip
            self.assertEqual(done.stdout.split("\n", 1)[0], status, done.stdout)
        self.assertIn(str(STRANGER), done.stdout)

    def test_a_reload_takes_a_new_certificate_and_keeps_the_old_before_a_bad_one(self) -> None:
        self.start()
        before = self.served()
        self.key.write_text("not a certificate")
        self.staithed.process.signal(signal.SIGHUP)
        self.wait_for("TLS file not reloaded")
        self.assertEqual(self.served(), before)
        self.tree.setup("--undo")
        self.tree.setup("--apply")
        shutil.copy(self.tree.at("etc/staithe/tls/localhost.pem"), self.key)
        shutil.copy(self.tree.at("etc/staithe/tls/ca.crt"), self.authority)
        self.staithed.process.signal(signal.SIGHUP)
        deadline = time.monotonic() + 20
        while True:
            try:
                after = self.served()
                break
            except ssl.SSLError:
                self.assertLess(time.monotonic(), deadline, "the new certificate is not served")
        self.assertNotEqual(after, before)

    def wait_for(self, words: str) -> None:
        deadline = time.monotonic() + 20
        while words not in self.staithed.log.read_text():
            self.assertLess(time.monotonic(), deadline, words)
            time.sleep(0.02)


if __name__ == "__main__":
    unittest.main()
