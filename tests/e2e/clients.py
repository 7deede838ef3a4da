"""The real clients, each with a store of its own, so that nothing of this machine is touched."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

from process import Process, in_place_of_others

PATH = "/usr/sbin:/usr/bin:/sbin:/bin"


class ClientFailed(Exception):
    pass


def run(
    command: list[str | Path],
    env: dict[str, str] | None = None,
    timeout: float = 300,
    stdin: str = "",
) -> str:
    """Runs a client to its end; gives what it printed, raises with it when it failed."""
    done = subprocess.run(
        [str(word) for word in command],
        env={**os.environ, "PATH": PATH, **(env or {})},
        input=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout,
        check=False,
    )
    if done.returncode != 0:
        raise ClientFailed(f"{command[0]} ended with {done.returncode}:\n{done.stdout}")
    return done.stdout


class Skopeo:
    """Copies into a `dir:`, where manifests keep their bytes and blobs are named by digest."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir()
        self._directory = directory
        self._copies = 0

    def pull(self, reference: str, *options: str) -> str:
        """Pulls all platforms of `host/repository:tag`; gives the digest of what came."""
        return self.checked(self.copy(reference, *options))

    def copy(self, reference: str, *options: str) -> Path:
        """Pulls, and looks at nothing; for who wants to know how long that takes."""
        self._copies += 1
        target = self._directory / str(self._copies)
        run(
            ["skopeo", "copy", "--all", "--preserve-digests", "--src-tls-verify=false",
             *options, f"docker://{reference}", f"dir:{target}"]
        )  # fmt: skip
        return target

    def checked(self, target: Path) -> str:
        """The digest of a copy whose blobs are what their names say."""
        for blob in target.iterdir():
            if len(blob.name) == 64 and _sha256(blob) != blob.name:
                raise ClientFailed(f"skopeo stored wrong bytes for {blob.name}")
        return f"sha256:{_sha256(target / 'manifest.json')}"

    def forget(self) -> None:
        """Frees the disk; every pull goes to a new directory anyway."""
        run(["rm", "-rf", *sorted(self._directory.iterdir())])


class Containerd:
    """containerd, and `ctr` with a hosts.toml for each registry."""

    def __init__(self, directory: Path, outlive: bool = False) -> None:
        directory.mkdir()
        self._directory = directory
        self.socket = directory / "containerd.sock"
        self.hosts = directory / "hosts"
        config = directory / "config.toml"
        # Isolated: content that one namespace has is fetched again for another.
        config.write_text(
            'version = 2\ndisabled_plugins = ["io.containerd.grpc.v1.cri"]\n'
            '[plugins."io.containerd.metadata.v1.bolt"]\n  content_sharing_policy = "isolated"\n'
        )
        self.process = Process(
            "containerd",
            ["/usr/bin/containerd", "--root", directory / "root", "--state", directory / "state",
             "-a", self.socket, "--config", config, "--log-level", "warn"],
            directory / "containerd.log",
            {"PATH": PATH},
            outlive,
        )  # fmt: skip
        wait_until(self._answers, self.process)

    def mirror(self, registry: str, url: str, server: str = "") -> None:
        """Pulls of `registry` go to `url`, and from there to `server`, if anywhere."""
        directory = self.hosts / registry
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "hosts.toml").write_text(
            f'server = "{server or url}"\n\n[host."{url}"]\n  capabilities = ["pull", "resolve"]\n'
        )

    def pull(self, reference: str, *options: str) -> str:
        """Pulls and unpacks; gives the digest that the image has in containerd's store."""
        self.ctr("images", "pull", *options, "--hosts-dir", self.hosts, reference)
        return self.digest(reference)

    def fetch(self, reference: str) -> str:
        """Pulls without unpacking, which takes its time with any registry."""
        self.ctr("content", "fetch", "--all-platforms", "--hosts-dir", self.hosts, reference)
        return reference

    def digest(self, reference: str) -> str:
        for line in self.ctr("images", "ls").splitlines()[1:]:
            words = line.split()
            if words[0] == reference:
                return words[2]
        raise ClientFailed(f"{reference} is not in containerd's list")

    def run(self, reference: str, *command: str) -> str:
        return self.ctr("run", "--rm", reference, "staithe-test", *command)

    def forget(self, reference: str) -> None:
        """Removes the image and, by the collection that --sync waits for, its content."""
        self.ctr("images", "rm", "--sync", reference)

    def content(self) -> set[str]:
        return set(self.ctr("content", "ls", "-q").split())

    def ctr(self, *words: str | Path) -> str:
        return run(["ctr", "-a", self.socket, *words])

    def _answers(self) -> bool:
        return self.socket.exists() and _succeeds(["ctr", "-a", self.socket, "version"])

    def stop(self) -> None:
        self.process.stop()


class Dockerd:
    """dockerd on the lab's containerd, without a bridge and without touching iptables.

    `straight` are registries (host:port) below *.localhost that it pulls from itself, taking any
    certificate; Go's resolver knows such names only from a hosts file.
    """

    def __init__(
        self,
        directory: Path,
        containerd: Containerd,
        mirrors: list[str],
        straight: list[str] | None = None,
        config: Path | None = None,  # its daemon.json, if it is somebody else's
        certificates: Path | None = None,  # what it sees as /etc/docker/certs.d
    ) -> None:
        directory.mkdir()
        self._directory = directory
        self.socket = directory / "docker.sock"
        self.client_directory = directory / "client"
        self.client_directory.mkdir()
        if config is None:
            config = directory / "daemon.json"
            settings = {"registry-mirrors": mirrors, "insecure-registries": straight or []}
            config.write_text(json.dumps(settings))
        mounts: dict[str, Path] = {}
        if certificates:
            own = directory / "etc"
            shutil.copytree(certificates, own / "certs.d")
            mounts["/etc/docker"] = own
        if straight:
            hosts = directory / "hosts"
            names = {s.partition(":")[0] for s in straight} | {"localhost", "store.blob.localhost"}
            hosts.write_text("".join(f"127.0.0.1 {name}\n" for name in sorted(names)))
            mounts["/etc/hosts"] = hosts
        self.process = Process(
            "dockerd",
            [*in_place_of_others(mounts), "/usr/sbin/dockerd", "--config-file", config, "--data-root", directory / "root",
             "--exec-root", directory / "exec", "-H", f"unix://{self.socket}", "--containerd",
             containerd.socket, "--pidfile", directory / "docker.pid", "--iptables=false",
             "--log-level=warn", "--ip6tables=false", "--bridge=none",
             "--exec-opt", "native.cgroupdriver=cgroupfs"],
            directory / "dockerd.log",
            {"PATH": PATH},
        )  # fmt: skip
        wait_until(self._answers, self.process)

    def pull(self, reference: str) -> str:
        """Gives the digest by which dockerd knows the image."""
        self.docker("pull", "--quiet", reference)
        names = self.docker("image", "inspect", "-f", "{{json .RepoDigests}}", reference)
        (name,) = json.loads(names)
        return name.partition("@")[2]

    def forget(self, reference: str) -> None:
        self.docker("rmi", "--force", reference)

    def run(self, reference: str, *command: str) -> str:
        return self.docker("run", "--rm", "--network=none", reference, *command)

    def docker(self, *words: str, env: dict[str, str] | None = None, stdin: str = "") -> str:
        # Debian's client by its full path: another one may come earlier on PATH.
        env = {"DOCKER_CONFIG": str(self.client_directory), **(env or {})}
        return run(["/usr/bin/docker", "-H", f"unix://{self.socket}", *words], env, stdin=stdin)

    def _answers(self) -> bool:
        return self.socket.exists() and _succeeds(
            ["/usr/bin/docker", "-H", f"unix://{self.socket}", "version"]
        )

    def stop(self) -> None:
        self.process.stop()


class Podman:
    """podman with a registries.conf that names the daemon as a mirror."""

    def __init__(self, directory: Path, registry: str, mirror: str) -> None:
        directory.mkdir()
        self._directory = directory
        conf = directory / "registries.conf"
        conf.write_text(
            "unqualified-search-registries = []\n\n"
            f'[[registry]]\nlocation = "{registry}"\n\n'
            f'[[registry.mirror]]\nlocation = "{mirror}"\ninsecure = true\n'
        )
        engine = directory / "containers.conf"
        self._auth = directory / "auth.json"
        self._auth.write_text("{}")
        engine.write_text('[engine]\ncgroup_manager = "cgroupfs"\nevents_logger = "file"\n')
        self._env = {
            "CONTAINERS_REGISTRIES_CONF": str(conf),
            "CONTAINERS_CONF": str(engine),
            "REGISTRY_AUTH_FILE": str(self._auth),
        }

    def login(self, host: str, user: str, secret: str) -> None:
        """As `podman login` would leave it behind."""
        pair = base64.b64encode(f"{user}:{secret}".encode()).decode()
        self._auth.write_text(json.dumps({"auths": {host: {"auth": pair}}}))

    def pull(self, reference: str) -> str:
        self.podman("pull", "--quiet", reference)
        return self.podman("image", "inspect", reference, "--format", "{{.Digest}}").strip()

    def podman(self, *words: str) -> str:
        store = self._directory
        return run(
            ["podman", "--root", store / "root", "--runroot", store / "run", "--tmpdir",
             store / "tmp", *words],
            self._env,
        )  # fmt: skip


def wait_until(condition, process: Process, seconds: float = 30) -> None:
    """Polls: these programs tell nobody but systemd, if anybody, that they are ready."""
    deadline = time.monotonic() + seconds
    while not condition():
        process.must_run()
        if time.monotonic() > deadline:
            raise TimeoutError(f"{process.name} did not get ready:\n{process.tail(20)}")
        time.sleep(0.05)


def unmount_below(directory: Path) -> None:
    """Container engines leave mounts behind in their directories, which then cannot be removed."""
    mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
    for mount in reversed([m for m in mounts if m.startswith(f"{directory}/")]):
        subprocess.run(["umount", "-l", mount], check=False)


def _succeeds(command: list[Any]) -> bool:
    words = [str(word) for word in command]
    done = subprocess.run(words, capture_output=True, timeout=20, check=False)
    return done.returncode == 0


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
