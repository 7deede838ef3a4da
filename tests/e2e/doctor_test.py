#!/usr/bin/python3
"""`staithe doctor` on set-ups that are broken, each in one way: it names the step that fails and
what mends it, and nothing that is secret; on one that is whole it finds nothing to mend.
"""

from __future__ import annotations

import email.utils
import http.server
import json
import os
import subprocess
import threading
import time
import unittest
from pathlib import Path
from typing import Any

from disks import MIB, enter_private_mounts, mount_memory, remount, unmount
from identity_case import APP, SYSTEM_TRUST, service_principal
from lab import Lab, needs_root
from leaks import Needles
from staithed import binary
from standin.client import ask
from standin.settings import ACR_AUDIENCE, SERVICE_PRINCIPAL, SYSTEM_IDENTITY

IMAGE = "contoso.azurecr.io/busybox:1"
REGISTRY = "contoso.azurecr.io"
PASSWORD = "the+admins/own=password"
STRANGER = "99999999-0000-4000-8000-000000000009"
NOBODY = 65534
# The steps of a registry, in their order.
WALK = ["identity", "entra", "challenge", "exchange", "token", "manifest", "blob-host", "clock"]


class Silent(http.server.BaseHTTPRequestHandler):
    """Another program: it speaks HTTP, and knows nothing of what is asked."""

    def log_message(self, *_: object) -> None:
        pass


class Report:
    """What a run of the command has said."""

    def __init__(self, done: subprocess.CompletedProcess[str]) -> None:
        self.status = done.returncode
        self.err = done.stderr
        self.out = done.stdout
        lines = [json.loads(line) for line in done.stdout.splitlines()]
        self.steps = [line for line in lines if line["kind"] == "step"]
        self.sum = lines[-1] if lines and lines[-1]["kind"] == "sum" else None

    def named(self, step: str, subject: str = "") -> list[dict[str, Any]]:
        return [s for s in self.steps if s["step"] == step and subject in s["subject"]]

    def states(self, subject: str) -> dict[str, str]:
        return {s["step"]: s["state"] for s in self.steps if s["subject"] == subject}

    def failed(self) -> list[str]:
        return [s["step"] for s in self.steps if s["state"] == "failed"]


class DoctorTest(unittest.TestCase):
    lab: Lab

    @classmethod
    def setUpClass(cls) -> None:
        cls.lab = Lab()
        cls.addClassCleanup(cls.lab.close)
        cls.addresses = cls.lab.azure_addresses
        cls.settings = cls.lab.azure.settings()
        cls.number = 0

    def setUp(self) -> None:
        type(self).number += 1
        self.azure = self.lab.azure
        self.staithed = self.lab.another_staithed(f"d{self.number}")
        self.home = self.lab.directory / f"d{self.number}"
        self.addCleanup(self.staithed.stop)
        self.addCleanup(self.azure.set, **self.settings)
        self.addCleanup(self.azure.faults)
        # The files of clients: none, unless a test writes some.
        self.root = self.home / "root"
        self.root.mkdir()

    def command(self, *words: str) -> list[str]:
        return self.staithed.command_line("doctor", *words, "--root", str(self.root), "--config",
                                          str(self.staithed.config_file))  # fmt: skip

    def doctor(self, *words: str, **more: Any) -> Report:
        line = [*self.command(*words), "--json"]
        return Report(subprocess.run(line, capture_output=True, text=True, timeout=90, check=False,
                                     **more))  # fmt: skip

    def assert_found(
        self, report: Report, step: str, *words: str, state: str = "failed", status: int = 1
    ) -> dict[str, Any]:
        """This step, and no other before it, is what is wrong; its mend has these words."""
        self.assertEqual(report.status, status, report.out + report.err)
        wrong = [s for s in report.steps if s["state"] == state]
        self.assertTrue(wrong, report.out)
        self.assertEqual(wrong[0]["step"], step, report.out)
        for word in words:
            self.assertIn(word, wrong[0]["mend"])
        return wrong[0]

    def write(self, path: str, text: str) -> None:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def use_principal(self, secret: str) -> Path:
        file = self.home / "secret"
        file.write_text(secret)
        file.chmod(0o600)
        self.staithed.in_place_of[SYSTEM_TRUST] = Path(self.addresses["ca_file"])
        self.staithed.configured({"azure": {"authority": self.addresses["entra"]}})
        self.staithed.config["identity"] = {"vm": service_principal(client_secret_file=str(file))}
        return file


class Whole(DoctorTest):
    def test_nothing_is_to_be_mended_where_nothing_is_broken(self) -> None:
        self.staithed.start()
        self.azure.reset_log()
        report = self.doctor(IMAGE)
        self.assertEqual(report.status, 0, report.out)
        self.assertEqual(report.failed(), [])
        states = report.states(REGISTRY)
        self.assertEqual([step for step in WALK if step in states], WALK)
        self.assertEqual(states.pop("entra"), "skipped")  # the metadata service is asked for it
        self.assertEqual(set(states.values()), {"ok"}, report.out)
        for step in ("daemon", "configuration", "disk", "listener"):
            self.assertEqual([s["state"] for s in report.named(step)], ["ok"], report.out)
        # Each said what it tried and how long that took; the blobs come from storage.
        for step in ("identity", "challenge", "exchange", "token", "manifest", "blob-host"):
            (found,) = report.named(step, REGISTRY)
            self.assertIn("http", found["tried"])
            self.assertGreater(found["seconds"], 0)
        self.assertIn(self.settings["blob_host"], found["finding"])
        for step in report.steps:
            self.assertEqual(set(step), {"kind", "step", "subject", "state", "tried", "seconds",
                                         "finding", "mend", "class"})  # fmt: skip
        self.assertEqual(set(report.sum), {"kind", "done", "ok", "warnings", "failed", "skipped",
                                           "seconds"})  # fmt: skip
        self.assertEqual(report.sum["failed"], 0)
        # Politely: identity, challenge, exchange, token, manifest, blob and its redirect.
        self.assertLessEqual(len(self.azure.log()), 8)

    def test_it_asks_anew_and_keeps_nothing(self) -> None:
        self.staithed.start()
        self.doctor(IMAGE)
        self.assertEqual(self.staithed.status()["cache"]["blobs"], 0)
        self.assertEqual(self.staithed.status()["registries"][0]["tokens"], [])
        self.azure.reset_log()
        self.doctor(IMAGE)
        kinds = {e["kind"] for e in self.azure.log()}
        self.assertIn("exchange", " ".join(kinds))

    def test_a_registry_without_an_identity_and_one_with_a_password(self) -> None:
        self.azure.set(admin_users={"fabrikam": {"username": "fabrikam", "password": PASSWORD,
                                                 "password2": PASSWORD + "2"}})  # fmt: skip
        file = self.home / "password"
        file.write_text(PASSWORD)
        file.chmod(0o600)
        self.staithed.config["identity"]["admin"] = {
            "kind": "basic", "username": "fabrikam", "password_file": str(file)}  # fmt: skip
        self.staithed.registry("fabrikam.azurecr.io")["identity"] = "admin"
        self.staithed.start()
        for image, registry in (("busybox:1", "docker.io"),
                                ("fabrikam.azurecr.io/web:1", "fabrikam.azurecr.io")):  # fmt: skip
            report = self.doctor(image)
            states = report.states(registry)
            self.assertEqual([states[step] for step in ("entra", "exchange")], ["skipped"] * 2)
            self.assertEqual([states[step] for step in ("identity", "challenge", "token")],
                             ["ok"] * 3, report.out)  # fmt: skip
        self.assertIn("a password for the user fabrikam", report.named("identity")[0]["finding"])
        self.assertNotIn(PASSWORD, report.out)

    def test_without_an_image_one_of_the_cache_is_tried(self) -> None:
        self.staithed.start()
        report = self.doctor(REGISTRY)
        self.assertEqual(report.states(REGISTRY)["token"], "skipped")
        self.assertEqual(report.status, 0, report.out)
        self.staithed.get("/v2/contoso.azurecr.io/busybox/manifests/1")
        report = self.doctor()
        self.assertEqual(report.states(REGISTRY)["blob-host"], "ok", report.out)

    def test_the_text_is_for_people_and_has_no_colour_in_a_pipe(self) -> None:
        self.staithed.start()
        done = subprocess.run(self.command(IMAGE), capture_output=True, text=True, timeout=60,
                              check=False)  # fmt: skip
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("ok       exchange      contoso.azurecr.io", done.stdout)
        self.assertIn("0 failed", done.stdout)
        self.assertNotIn("\x1b", done.stdout)

    def test_no_token_secret_or_signed_link_is_in_it(self) -> None:
        self.use_principal(SERVICE_PRINCIPAL["secret"])
        self.staithed.start()
        text = self.doctor(IMAGE).out
        self.azure.faults({"role": "storage", "action": {"status": 403, "echo": True}})
        text += self.doctor(IMAGE).out
        self.azure.faults({"role": "acr", "path": "/oauth2/", "action": {"status": 401, "echo": True}})
        text += self.doctor(IMAGE).out
        needles = Needles([(one["kind"], one["text"]) for one in self.azure.secrets()])
        self.assertEqual([str(leak) for leak in needles.search("doctor", text.encode())], [])
        self.assertNotIn("sig=", text)

    def test_a_sign_in_is_what_is_tried(self) -> None:
        self.use_principal("not~the+secret")
        self.staithed.start()
        query = f"api-version=2018-02-01&resource={ACR_AUDIENCE}"
        url = f"{self.addresses['imds']}/metadata/identity/oauth2/token?{query}"
        token = ask("GET", url, {"Metadata": "true"}).json()["access_token"]
        self.staithed.control("POST", "/v1/login", {"registry": REGISTRY, "token": token})
        report = self.doctor(IMAGE)
        self.assertEqual(report.status, 0, report.out)
        self.assertIn("the sign-in", report.named("identity")[0]["finding"])
        self.assertNotIn(token[:24], report.out)

    def test_one_runs_at_a_time_and_ends_with_the_daemon(self) -> None:
        self.staithed.start()
        self.azure.faults({"role": "imds", "action": {"hold": "imds"}})
        line = [*self.command(IMAGE), "--json"]
        first = subprocess.Popen(line, stdout=subprocess.PIPE, text=True)
        self.addCleanup(self.azure.release, "imds")
        self.azure.wait_until_held("imds")
        report = self.doctor(IMAGE)
        self.assertIn("another diagnosis", report.named("daemon")[-1]["finding"])
        # It is not waited for, though the metadata service never answers.
        self.assertEqual(self.staithed.stop(), 0)
        out, _ = first.communicate(timeout=60)
        self.assertNotEqual(first.returncode, 0)
        self.assertIn("broke its answer off", out)

    def test_wrong_usage_is_said(self) -> None:
        for words in (["a b"], [IMAGE, IMAGE], ["--nothing"]):
            self.assertEqual(self.doctor(*words).status, 2, words)


class BrokenCredentials(DoctorTest):
    def test_an_identity_that_the_machine_does_not_have(self) -> None:
        self.staithed.configured({"identity": {"vm": {"client_id": STRANGER}}}).start()
        found = self.assert_found(self.doctor(IMAGE), "identity", "az vm identity assign", STRANGER)
        self.assertEqual(found["class"], "identity_missing")

    def test_a_machine_without_any_identity(self) -> None:
        self.azure.set(identities=[])
        self.staithed.start()
        report = self.doctor(IMAGE)
        self.assert_found(report, "identity", "az vm identity assign", "switches on")
        # What does not depend on it is tried all the same; what does says why not.
        self.assertEqual(report.states(REGISTRY)["challenge"], "ok")
        self.assertEqual(report.states(REGISTRY)["exchange"], "skipped")

    def test_no_metadata_service(self) -> None:
        self.azure.set(down=["imds"])
        self.staithed.start()
        self.assert_found(self.doctor(IMAGE), "identity", "169.254.169.254", "service-principal")

    def test_a_wrong_client_secret(self) -> None:
        file = self.use_principal("not~the+secret")
        self.staithed.start()
        report = self.doctor(IMAGE)
        self.assertEqual(report.states(REGISTRY)["identity"], "ok")
        self.assert_found(report, "entra", f"az ad app credential reset --id {APP}", str(file))

    def test_a_tenant_that_does_not_exist(self) -> None:
        self.use_principal(SERVICE_PRINCIPAL["secret"])
        self.staithed.config["identity"]["vm"]["tenant_id"] = STRANGER
        self.staithed.start()
        self.assert_found(self.doctor(IMAGE), "entra", "tenant_id", "[identity.vm]")

    def test_entra_out_of_reach(self) -> None:
        self.use_principal(SERVICE_PRINCIPAL["secret"])
        self.azure.set(down=["entra"])
        self.staithed.start()
        self.assert_found(self.doctor(IMAGE), "entra", "let this machine reach login.localhost")

    def test_a_secret_file_that_is_gone(self) -> None:
        file = self.use_principal(SERVICE_PRINCIPAL["secret"])
        self.staithed.start()
        file.unlink()
        report = self.doctor(IMAGE)
        self.assert_found(report, "identity", str(file))
        file.write_text("for all to see")
        file.chmod(0o644)
        found = self.assert_found(self.doctor(IMAGE), "identity", str(file))
        self.assertIn("chmod 0600", found["finding"])

    def test_a_file_that_has_got_a_fault_is_told_before_the_restart(self) -> None:
        self.staithed.start()
        with self.staithed.config_file.open("a") as file:
            file.write("[lock]\n")
        report = self.doctor(IMAGE)
        self.assert_found(report, "configuration", "staithed --check", state="warning", status=0)

    def test_an_identity_without_acrpull(self) -> None:
        self.azure.set(identities_without_role=[SYSTEM_IDENTITY["client_id"]])
        self.staithed.start()
        self.assert_found(self.doctor(IMAGE), "exchange", "az role assignment create",
                          "--role AcrPull", "az acr show --name contoso")  # fmt: skip

    def test_a_repository_that_it_may_not_read(self) -> None:
        self.azure.set(denied=["contoso/team-a/*"])
        self.staithed.start()
        self.assert_found(self.doctor("contoso.azurecr.io/team-a/private:1"), "token",
                          "Container Registry Repository Reader")  # fmt: skip

    def test_a_token_server_that_asks_for_a_pause(self) -> None:
        throttled = {"status": 429, "add_headers": {"Retry-After": "300"}}
        self.azure.faults({"role": "acr", "path": "/oauth2/exchange", "action": throttled})
        self.staithed.start()
        found = self.assert_found(self.doctor(IMAGE), "exchange", "wait")
        self.assertEqual(found["class"], "throttled")


class BrokenWay(DoctorTest):
    def test_a_name_that_nobody_knows(self) -> None:
        self.staithed.config["registry"].append(
            {"name": "nosuch.example", "upstream": ["https://nosuch.invalid"]})  # fmt: skip
        self.staithed.start()
        report = self.doctor("nosuch.example/app:1")
        self.assert_found(report, "challenge", "getent hosts nosuch.invalid", "privatelink")

    def test_a_registry_that_is_not_configured(self) -> None:
        self.staithed.start()
        self.assert_found(self.doctor("other.example/app:1"), "registry",
                          'name = "other.example"')  # fmt: skip

    def test_a_firewall_of_the_registry(self) -> None:
        body = json.dumps({"errors": [{"code": "DENIED", "message": "client with IP '203.0.113.9' "
                                       "is not allowed access. Refer https://aka.ms/acr/firewall "
                                       "to grant access."}]})  # fmt: skip
        self.azure.faults({"role": "acr", "action": {"status": 403, "body": body}})
        self.staithed.start()
        found = self.assert_found(self.doctor(IMAGE), "challenge", "az acr network-rule add",
                                  "--name contoso")  # fmt: skip
        self.assertIn("203.0.113.9", found["finding"])

    def test_a_certificate_that_is_not_trusted(self) -> None:
        del self.staithed.registry(REGISTRY)["ca_file"]
        self.staithed.start()
        self.assert_found(self.doctor(IMAGE), "challenge", "ca_file", "update-ca-certificates")

    def test_a_registry_that_is_away(self) -> None:
        self.azure.set(down=["acr"])
        self.staithed.start()
        self.assert_found(self.doctor(IMAGE), "challenge", "let this machine reach contoso")

    def test_a_clock_that_is_wrong(self) -> None:
        date = email.utils.formatdate(time.time() - 1800, usegmt=True)
        self.azure.faults({"role": "acr", "action": {"add_headers": {"Date": date}}},
                          {"role": "storage", "action": {"add_headers": {"Date": date}}})  # fmt: skip
        self.staithed.start()
        found = self.assert_found(self.doctor(IMAGE), "clock", "timedatectl")
        self.assertIn("ahead", found["finding"])

    def test_a_tag_that_is_not_there(self) -> None:
        self.staithed.start()
        self.assert_found(self.doctor("contoso.azurecr.io/busybox:nosuch"), "manifest",
                          "az acr repository show-tags --name contoso --repository busybox")  # fmt: skip

    def test_a_host_of_blobs_out_of_reach(self) -> None:
        self.azure.set(down=["storage"])
        self.staithed.start()
        self.assert_found(self.doctor(IMAGE), "blob-host", self.settings["blob_host"],
                          "private endpoint", "az acr show-endpoints --name contoso")  # fmt: skip

    def test_a_host_of_blobs_that_is_not_trusted(self) -> None:
        del self.staithed.registry(REGISTRY)["data_hosts"]
        self.staithed.start()
        self.assert_found(self.doctor(IMAGE), "blob-host", "data_hosts")

    def test_a_registry_that_has_asked_for_a_pause_is_left_alone(self) -> None:
        throttled = {"status": 429, "add_headers": {"Retry-After": "300"}}
        self.azure.faults({"role": "acr", "path": "/manifests/", "action": throttled})
        self.staithed.start()
        self.staithed.get("/v2/contoso.azurecr.io/busybox/manifests/1")
        self.azure.faults()
        self.azure.reset_log()
        report = self.doctor(IMAGE)
        self.assert_found(report, "pause", "wait")
        self.assertEqual([e for e in self.azure.log() if e["role"] == "acr"], [])

    def test_a_mirror_that_is_away_is_a_warning(self) -> None:
        contoso = self.staithed.registry(REGISTRY)
        contoso["upstream"] = ["https://localhost:9", *contoso["upstream"]]
        self.staithed.start()
        report = self.doctor(IMAGE)
        self.assert_found(report, "mirror", "let this machine reach", state="warning", status=0)
        self.assertEqual(report.states(REGISTRY)["manifest"], "ok", report.out)


class BrokenMachine(DoctorTest):
    def test_no_daemon(self) -> None:
        self.staithed.start()
        self.staithed.stop()
        report = self.doctor()
        self.assert_found(report, "daemon", "systemctl start staithed", status=3)
        self.assertEqual([s["state"] for s in report.named("listener")], ["skipped"])

    def test_a_fault_in_the_configuration(self) -> None:
        self.staithed.config_file.write_text("[cache]\nmax_sise = 5\n")
        report = self.doctor()
        self.assertEqual(report.status, 3)
        (found,) = report.named("configuration")
        self.assertEqual(found["state"], "failed")
        self.assertIn("staithe.toml:2: cache.max_sise", found["finding"])
        self.assertIn("correct it", found["mend"])

    def test_a_port_that_another_program_has(self) -> None:
        self.staithed.start()
        self.staithed.stop()
        taker = http.server.HTTPServer(("127.0.0.1", self.staithed.port), Silent)
        thread = threading.Thread(target=taker.serve_forever)
        thread.start()
        self.addCleanup(taker.server_close)
        self.addCleanup(thread.join)
        self.addCleanup(taker.shutdown)
        (found,) = self.doctor().named("listener")
        self.assertEqual(found["state"], "failed", found)
        self.assertIn(f"(pid {os.getpid()})", found["finding"])
        self.assertIn("listen.registry", found["mend"])

    @needs_root
    def test_a_socket_that_the_user_may_not_use(self) -> None:
        self.staithed.start()
        self.lab.directory.chmod(0o711)
        self.home.chmod(0o711)
        found = self.assert_found(self.doctor(user=NOBODY, group=NOBODY, extra_groups=[]), "daemon",
                                  "sudo staithe doctor", status=3)  # fmt: skip
        self.assertIn("may not use", found["finding"])
        os.chown(self.staithed.socket, 0, 4)  # adm
        self.assert_found(self.doctor(user=NOBODY, group=NOBODY, extra_groups=[]), "daemon",
                          "group adm", "usermod -aG adm", status=3)  # fmt: skip

    @needs_root
    def test_who_may_look_and_not_act_is_told(self) -> None:
        self.staithed.start()
        self.lab.directory.chmod(0o711)
        self.home.chmod(0o711)
        os.chown(self.staithed.socket, 0, NOBODY)
        report = self.doctor(user=NOBODY, group=NOBODY, extra_groups=[])
        self.assertEqual(report.status, 1)
        self.assertIn("sudo staithe doctor", report.named("daemon")[-1]["mend"])
        self.assertEqual([s["state"] for s in report.named("listener")], ["ok"])

    @needs_root
    def test_a_disk_that_takes_no_writes(self) -> None:
        enter_private_mounts()
        disk = self.home / "disk"
        mount_memory(disk, "size=64m")
        self.addCleanup(unmount, disk)
        self.addCleanup(self.staithed.stop)  # before that
        self.staithed.configured({"cache": {"directory": str(disk / "cache")}}).start()
        self.assertIn("tmpfs", self.doctor(REGISTRY).named("disk")[0]["finding"])
        filler = disk / "filler"
        with filler.open("wb") as file:
            try:
                while True:
                    file.write(b"x" * MIB)
                    file.flush()
            except OSError:
                pass
        self.assert_found(self.doctor(REGISTRY), "disk", "df -h")
        filler.unlink()
        self.staithed.stop()
        remount(disk, "ro")
        self.staithed.start()
        self.assert_found(self.doctor(REGISTRY), "disk", "remount,rw")
        self.staithed.stop()


class BrokenClients(DoctorTest):
    HOSTS = 'server = "https://{0}"\n[host."http://{1}"]\n  capabilities = ["pull", "resolve"]\n'
    CONTAINERD = (
        'version = 3\n[plugins."io.containerd.cri.v1.images".registry]\n  config_path = "{}"\n'
    )

    def setUp(self) -> None:
        super().setUp()
        self.azure_names = ("contoso.azurecr.io", "fabrikam.azurecr.io")
        self.staithed.start()

    def client(self, name: str) -> dict[str, Any]:
        (found,) = self.doctor(REGISTRY).named("client", name)
        return found

    def test_those_that_lead_here_are_well(self) -> None:
        self.write("etc/containerd/config.toml", self.CONTAINERD.format("/etc/containerd/certs.d"))
        self.write("etc/docker/daemon.json", '{"features":{"containerd-snapshotter":true}}')
        for client in ("containerd", "docker"):
            self.write(f"etc/{client}/certs.d/{REGISTRY}/hosts.toml",
                       self.HOSTS.format(REGISTRY, self.staithed.address))  # fmt: skip
        self.write("usr/bin/podman", "")
        self.write("etc/containers/registries.conf.d/50-staithe.conf",
                   f'[[registry]]\nlocation = "{REGISTRY}"\n[[registry.mirror]]\n'
                   f'location = "{self.staithed.address}/{REGISTRY}"\ninsecure = true\n')  # fmt: skip
        report = self.doctor(REGISTRY)
        self.assertEqual(report.status, 0, report.out)
        found = {s["subject"]: s["state"] for s in report.named("client")}
        self.assertEqual(found, dict.fromkeys(("containerd", "docker", "podman"), "ok"), report.out)

    def test_hosts_toml_that_leads_to_another_port(self) -> None:
        self.write("etc/containerd/config.toml", self.CONTAINERD.format("/etc/containerd/certs.d"))
        self.write(f"etc/containerd/certs.d/{REGISTRY}/hosts.toml",
                   self.HOSTS.format(REGISTRY, "127.0.0.1:9"))  # fmt: skip
        found = self.client("containerd")
        self.assertEqual(found["state"], "failed", found)
        self.assertIn("127.0.0.1:9", found["finding"])
        self.assertIn(f"write {self.staithed.address}", found["mend"])

    def test_two_directories_in_config_path(self) -> None:
        two = "/etc/containerd/certs.d:/etc/docker/certs.d"
        self.write("etc/containerd/config.toml", self.CONTAINERD.format(two))
        found = self.client("containerd")
        self.assertEqual(found["state"], "failed", found)
        self.assertIn("leave one directory", found["mend"])

    def test_a_daemon_json_that_is_none(self) -> None:
        self.write("etc/docker/daemon.json", '{"registry-mirrors": [}')
        found = self.client("docker")
        self.assertEqual(found["state"], "failed", found)
        self.assertIn("json.tool", found["mend"])

    def test_a_mirror_of_podman_without_insecure(self) -> None:
        self.write("usr/bin/podman", "")
        self.write("etc/containers/registries.conf",
                   f'[[registry]]\nlocation = "{REGISTRY}"\n[[registry.mirror]]\n'
                   f'location = "{self.staithed.address}/{REGISTRY}"\n')  # fmt: skip
        found = self.client("podman")
        self.assertEqual(found["state"], "failed", found)
        self.assertIn("insecure = true", found["mend"])

    def test_clients_that_were_never_set_up(self) -> None:
        self.write("usr/bin/dockerd", "")
        self.write("usr/bin/podman", "")
        report = self.doctor(REGISTRY)
        self.assertEqual(report.status, 0)
        for client in ("docker", "podman"):
            (found,) = report.named("client", client)
            self.assertEqual(found["state"], "warning", found)
            self.assertEqual(found["mend"], f"staithe setup {client} --apply")


if __name__ == "__main__":
    binary("staithe")
    unittest.main()
