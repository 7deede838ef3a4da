#!/usr/bin/python3
"""`staithe setup` with the real clients: set up, pull, take back, and nothing is left of it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import stat
import subprocess
import time
import unittest
from pathlib import Path

from clients import ClientFailed, run
from lab import LabTest, needs_root
from process import in_place_of_others
from staithed import binary

CONTAINERD_CONFIG = """\
# of this machine
version = 2
oom_score = -999 # before others

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "registry.k8s.io/pause:3.9"
  [plugins."io.containerd.grpc.v1.cri".registry]
    # "" is what `containerd config default` writes
    config_path = ""
"""

DAEMON_JSON = """\
{
    "log-driver": "local",
    "labels": ["a=[b]"]
}
"""

# What the unit of kubelet's package says, as far as setup looks at it.
KUBELET_UNIT = """\
[Service]
EnvironmentFile=-/etc/default/kubelet
ExecStart=/usr/bin/kubelet $KUBELET_EXTRA_ARGS
"""


def snapshot(directory: Path) -> dict[str, tuple]:
    """Every name below it with its mode, its owner, and what it holds."""
    found = {}
    for path in sorted(directory.rglob("*")):
        status = path.lstat()
        content: object = None
        if stat.S_ISREG(status.st_mode):
            content = path.read_bytes()
        elif stat.S_ISLNK(status.st_mode):
            content = os.readlink(path)
        found[str(path.relative_to(directory))] = (
            status.st_mode, status.st_uid, status.st_gid, content,
        )  # fmt: skip
    return found


class SetupCase(LabTest):
    def setUp(self) -> None:
        super().setUp()
        self.lab.staithed.start()
        self.root = self.lab.directory / "machine"
        for directory in ("etc", "usr/bin", "var/lib"):
            (self.root / directory).mkdir(parents=True)

    def install(self, name: str, program: Path) -> None:
        (self.root / "usr/bin" / name).symlink_to(program)

    def write(self, path: str, text: str, mode: int = 0o640) -> Path:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        file.chmod(mode)
        return file

    def setup_command(self, *words: str, fails: bool = False) -> str:
        done = self.lab.staithed.command("setup", *words, "--root", str(self.root))
        self.assertEqual(done.returncode, 1 if fails else 0, done.stdout + done.stderr)
        return done.stdout

    def requests(self) -> int:
        return self.lab.staithed.status()["traffic"]["requests"]


@needs_root
class SetupWithRealClients(SetupCase):
    def test_containerd(self) -> None:
        self.install("containerd", Path("/usr/bin/containerd"))
        config = self.write("etc/containerd/config.toml", CONTAINERD_CONFIG, 0o600)
        before = snapshot(self.root)
        shown = self.setup_command("containerd")
        self.assertIn("+++ /etc/containerd/certs.d/contoso.azurecr.io/hosts.toml", shown)
        self.assertEqual(snapshot(self.root), before)

        said = self.setup_command(
            "containerd", "--apply", "--image", "contoso.azurecr.io/busybox:1"
        )
        self.assertIn("now: systemctl restart containerd", said)
        self.assertIn("ok, manifest: ", said)
        self.assertIn("ok, blob: ", said)
        # containerd itself says what it makes of the file.
        dump = run(["containerd", "--config", config, "config", "dump"])
        self.assertIn('config_path = "/etc/containerd/certs.d"', dump)
        self.assertIn("oom_score = -999", dump)
        changed = config.read_text()
        self.assertEqual(
            changed,
            CONTAINERD_CONFIG.replace(
                'config_path = ""', 'config_path = "/etc/containerd/certs.d"'
            ),
        )

        containerd = self.lab.containerd()
        asked = self.requests()
        hosts = self.root / "etc/containerd/certs.d"
        for reference, origin in (
            ("contoso.azurecr.io/busybox:1", "contoso/busybox:1"),
            ("docker.io/library/busybox:1", "hub/library/busybox:1"),
        ):
            containerd.ctr("images", "pull", "--hosts-dir", hosts, reference)
            self.assertEqual(containerd.digest(reference), self.lab.digest(origin))
        self.assertGreater(self.requests(), asked)

        self.assertIn("say already what they have to", self.setup_command("containerd", "--apply"))
        self.setup_command("containerd", "--undo")
        self.assertEqual(snapshot(self.root), before)
        # Without it the registry is asked, which this machine does not have.
        containerd.forget("contoso.azurecr.io/busybox:1")
        with self.assertRaises(ClientFailed):
            containerd.ctr(
                "images", "pull", "--hosts-dir", hosts, "contoso.azurecr.io/busybox:1"
            )

    def test_dockerd(self) -> None:
        self.install("dockerd", Path("/usr/sbin/dockerd"))
        config = self.write("etc/docker/daemon.json", DAEMON_JSON, 0o644)
        before = snapshot(self.root)
        # dockerd runs already: setup restarts nothing, and a reload is enough.
        dockerd = self.lab.dockerd(mirrors=[], config=config)
        said = self.setup_command("docker", "--apply", "--image", "busybox:1")
        self.assertIn("now: systemctl reload docker", said)
        self.assertIn("asks mirrors for Docker Hub only", said)
        self.assertEqual(json.loads(config.read_text())["log-driver"], "local")
        self.assertEqual(self.mirrors(dockerd), [])
        dockerd.process.signal(signal.SIGHUP)
        self.wait_for_mirrors(dockerd, [f"{self.lab.staithed.url}/"])
        asked = self.requests()
        self.assertEqual(dockerd.pull("busybox:1"), self.lab.digest("hub/library/busybox:1"))
        self.assertGreater(self.requests(), asked)

        # dockerd keeps a mirror at a reload that its file no longer names.
        said = self.setup_command("docker", "--undo")
        self.assertIn("now: systemctl restart docker", said)
        self.assertEqual(snapshot(self.root), before)

    def mirrors(self, dockerd) -> list[str]:
        info = dockerd.docker("info", "--format", "{{json .RegistryConfig.Mirrors}}")
        return json.loads(info) or []

    def wait_for_mirrors(self, dockerd, expected: list[str]) -> None:
        deadline = time.monotonic() + 20
        while (found := self.mirrors(dockerd)) != expected:
            self.assertLess(time.monotonic(), deadline, f"dockerd still has {found}")
            time.sleep(0.05)

    def test_podman(self) -> None:
        self.install("podman", Path("/usr/bin/podman"))
        # The machine's own files, with one more of its user's.
        shutil.copytree("/etc/containers", self.root / "etc/containers", symlinks=True)
        self.write(
            "etc/containers/registries.conf.d/10-mine.conf",
            '# mine\n[[registry]]\nlocation = "docker.io"\nblocked = true\n',
        )
        before = snapshot(self.root)
        said = self.setup_command("podman", "--apply", "--image", "contoso.azurecr.io/busybox:1")
        self.assertIn("10-mine.conf has an entry for docker.io already", said)
        self.assertIn("ok, blob: ", said)
        reference = "contoso.azurecr.io/busybox:1"
        self.podman("pull", "--quiet", reference)
        digest = self.podman("image", "inspect", reference, "--format", "{{.Digest}}").strip()
        self.assertEqual(digest, self.lab.digest("contoso/busybox:1"))
        # What the user has blocked stays so.
        with self.assertRaises(ClientFailed):
            self.podman("pull", "--quiet", "docker.io/library/busybox:1")
        self.setup_command("podman", "--undo")
        self.assertEqual(snapshot(self.root), before)

    def podman(self, *words: str) -> str:
        store = self.lab.directory / "podman"
        store.mkdir(exist_ok=True)
        engine = store / "containers.conf"
        engine.write_text('[engine]\ncgroup_manager = "cgroupfs"\nevents_logger = "file"\n')
        (store / "auth.json").write_text("{}")
        return run(
            [*in_place_of_others({"/etc/containers": self.root / "etc/containers"}), "podman",
             "--root", store / "root", "--runroot", store / "run", "--tmpdir", store / "tmp",
             *words],
            {"CONTAINERS_CONF": str(engine), "REGISTRY_AUTH_FILE": str(store / "auth.json")},
        )  # fmt: skip


class SetupOfCredentials(SetupCase):
    def test_kubelet_gets_a_provider_that_answers(self) -> None:
        self.install("staithe-credential-provider", binary("staithe-credential-provider"))
        kubelet = self.write("usr/bin/kubelet", '#!/bin/sh\necho "Kubernetes v1.30.2"\n', 0o755)
        self.write("usr/lib/systemd/system/kubelet.service", KUBELET_UNIT)
        before = snapshot(self.root)
        line = self.lab.staithed.command_line("setup", "kubelet", "--apply", "--json")
        done = subprocess.run(
            [*line, "--root", str(self.root)],
            env={**os.environ, "STAITHE_SOCKET": str(self.lab.staithed.socket)},
            capture_output=True, text=True, timeout=30, check=False,
        )  # fmt: skip
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        (client,) = json.loads(done.stdout)["clients"]
        self.assertEqual(client["version"], "1.30.2")
        self.assertEqual([step["good"] for step in client["test"]["steps"]], [True])
        provider = self.root / "etc/kubernetes/kubelet-credential-provider.yaml"
        self.assertIn('- "contoso.azurecr.io"\n', provider.read_text())
        self.assertIn(
            "--image-credential-provider-bin-dir=/usr/bin",
            (self.root / "etc/default/kubelet").read_text(),
        )
        self.setup_command("kubelet", "--undo")
        self.assertEqual(snapshot(self.root), before)
        self.assertTrue(kubelet.exists())


if __name__ == "__main__":
    unittest.main()
