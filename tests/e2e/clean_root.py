"""A clean Debian of this machine's release in a directory, and a machine that boots it.

debootstrap makes the root once, under build/clean-root, from the mirror that this machine's apt
uses; a test sees it below an overlay of its own, so nothing that it does stays. The machine is
systemd as the first process of namespaces of its own: no process, mount, address or unit of it is
seen outside, and it ends with the test.
"""

from __future__ import annotations

import ctypes
import fcntl
import hashlib
import os
import platform
import shutil
import signal
import subprocess
import tempfile
import time
import unittest
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import lab  # noqa: F401  where the other folders of tests are found
from process import Process
from staithed import REPOSITORY_ROOT

_CACHE = REPOSITORY_ROOT / "build/clean-root"
_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


def run(*words: object, check: bool = True, **options) -> subprocess.CompletedProcess[str]:
    """A command of this machine; what it said is in the error if it fails."""
    done = subprocess.run(
        [str(word) for word in words], capture_output=True, text=True, check=False, **options
    )
    if check and done.returncode != 0:
        said = (done.stdout + done.stderr)[-4000:]
        raise AssertionError(f"{' '.join(map(str, words))}: exit {done.returncode}\n{said}")
    return done


# ---- the root ----------------------------------------------------------------------------------


def _release() -> str:
    lines = Path("/etc/os-release").read_text().splitlines()
    return next(l.partition("=")[2].strip('"') for l in lines if l.startswith("VERSION_CODENAME="))


def _mirror(release: str) -> str:
    """The first that this machine's apt has for the release."""
    found = run("apt-get", "indextargets", "--format", "$(SITE) $(CODENAME) $(COMPONENT)",
                "Created-By: Packages")  # fmt: skip
    for line in found.stdout.splitlines():
        site, codename, component = line.split()
        if (codename, component) == (release, "main"):
            return site
    raise unittest.SkipTest(f"apt of this machine has no mirror of {release} main")


@contextmanager
def locked() -> Iterator[None]:
    """Tests that run beside each other make what they share once."""
    _CACHE.mkdir(parents=True, exist_ok=True)
    with open(_CACHE / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def clean_root(package: Path) -> Path:
    """The root, with systemd, and without the package; what the package needs beside it stands in
    apt's cache, so that it installs without a network."""
    if os.geteuid() != 0:
        raise unittest.SkipTest("a root of its own needs root")
    if not shutil.which("debootstrap", path=_PATH):
        raise unittest.SkipTest("debootstrap is not installed: ./dev setup")
    with locked():
        root = _CACHE / f"{_release()}-{platform.machine()}"
        if not root.is_dir():
            new = _CACHE / "new"
            shutil.rmtree(new, ignore_errors=True)
            run("debootstrap", "--variant=minbase", "--include=systemd,systemd-sysv", _release(),
                new, _mirror(_release()), env={**os.environ, "PATH": _PATH})  # fmt: skip
            run("chroot", new, "apt-get", "-qq", "update")
            new.rename(root)
        needs = run("dpkg-deb", "--field", package, "Depends").stdout
        have = _CACHE / f"needs-{hashlib.sha256(needs.encode()).hexdigest()[:16]}"
        if not have.exists():
            shutil.copy(package, root / "package.deb")
            try:
                run("chroot", root, "apt-get", "-qq", "--no-install-recommends", "-y",
                    "-o", "APT::Keep-Downloaded-Packages=true", "--download-only", "install",
                    "/package.deb")  # fmt: skip
            finally:
                (root / "package.deb").unlink()
            have.touch()
    return root


# In namespaces of its own: an overlay of the root, and below it what each system has. What follows
# "--" is then the first process there.
_ENTER = """set -e
    lower=$1 scratch=$2
    shift 3
    mount --make-rprivate /
    mount -t tmpfs none "$scratch"
    mkdir "$scratch/upper" "$scratch/work" "$scratch/root"
    root=$scratch/root
    mount -t overlay overlay -o "lowerdir=$lower,upperdir=$scratch/upper,workdir=$scratch/work" \\
      "$root"
    mount -t proc proc "$root/proc"
    mount -t sysfs sysfs "$root/sys"
    mount -t cgroup2 none "$root/sys/fs/cgroup"
    mount -t tmpfs -o mode=755 none "$root/dev"
    mount -t tmpfs -o mode=755 none "$root/run"
    for device in null zero full random urandom tty; do
      touch "$root/dev/$device"
      mount --bind "/dev/$device" "$root/dev/$device"
    done
    mkdir "$root/dev/pts" "$root/dev/shm"
    mount -t devpts -o newinstance,ptmxmode=0666 devpts "$root/dev/pts"
    ln -s pts/ptmx "$root/dev/ptmx"
    ip link set lo up
    cd "$root"
    mkdir .old
    pivot_root . .old
    umount -l .old
    rmdir .old
    # systemd hands mounts to its services, credentials among them, by what is shared.
    mount --make-rshared /
    exec "$@"
"""
# A control group of its own: the machine's services become groups below it.
_GROUP = """set -e
    groups=$1 name=$2
    shift 3
    mount --make-rprivate /
    mount -t cgroup2 none "$groups"
    mkdir "$groups/$name"
    echo $$ >"$groups/$name/cgroup.procs"
    exec "$@"
"""


class Machine:
    """One that stands on the root; starts with boot(), or without systemd with sleep()."""

    def __init__(self, directory: Path, root: Path) -> None:
        directory.mkdir()
        self._directory = directory
        self._root = root
        self._group = f"staithe-test-{os.getpid()}-{directory.name}"
        self._process: Process | None = None
        self._first = 0  # the pid of its first process, here

    def boot(self) -> Machine:
        self._start("systemd", "/lib/systemd/systemd", "--log-target=journal",
                    "--unit=multi-user.target")  # fmt: skip
        self._wait_for("systemd does not boot here", lambda: self.active("multi-user.target"))
        return self

    def sleep(self) -> Machine:
        """Nothing runs in it but what run() runs."""
        self._start("sleep", "/bin/sleep", "infinity")
        return self

    def _start(self, name: str, *command: str) -> None:
        (self._directory / "groups").mkdir()
        (self._directory / "scratch").mkdir()
        inside = ["env", "-i", "container=staithe-test", f"PATH={_PATH}", *command]
        self._process = Process(
            name,
            ["unshare", "--mount", "sh", "-c", _GROUP, "sh", self._directory / "groups",
             self._group, "--",
             # It ends with the test, also if that is killed: unshare waits for its child, and takes
             # no SIGTERM meanwhile.
             "setpriv", "--pdeathsig=KILL", "unshare", "--mount", "--pid", "--cgroup", "--ipc",
             "--uts", "--net", "--fork", "--kill-child", "sh", "-c", _ENTER, "sh", self._root,
             self._directory / "scratch", "--", *inside],
            self._directory / "machine.log",
        )  # fmt: skip
        self._wait_for("this machine can have no other one in namespaces", self._has_begun)

    def _has_begun(self) -> bool:
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
        found = children.read_text().split()
        if found:
            self._first = int(found[0])
            # The shell has become what it is to run, behind a root of its own.
            words = Path(f"/proc/{self._first}/cmdline").read_bytes().split(b"\0")
            return words[0] in (b"/lib/systemd/systemd", b"/bin/sleep")
        return False

    def _wait_for(self, otherwise: str, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            if self._process.exit_code() is not None:
                break
            try:
                if condition():
                    return
            except FileNotFoundError:
                pass
            time.sleep(0.05)
        said = self._process.tail(5)
        self.end()
        raise unittest.SkipTest(f"{otherwise}: {said}")

    def end(self) -> None:
        if self._first:
            try:
                os.kill(self._first, signal.SIGKILL)
            except ProcessLookupError:
                pass
            self._first = 0
        if self._process and self._process.exit_code() is None:
            self._process.kill()
        self._remove_group()

    def _remove_group(self) -> None:
        with tempfile.TemporaryDirectory() as place:
            script = """mount --make-rprivate /; mount -t cgroup2 none "$1" || exit 0
                for _ in $(seq 100); do
                  [ -d "$1/$2" ] || exit 0
                  find "$1/$2" -depth -type d -exec rmdir {} + 2>/dev/null
                done"""
            run("unshare", "--mount", "sh", "-c", script, "sh", place, self._group, check=False)

    # ---- what is done in it --------------------------------------------------------------------

    def run(
        self, *words: object, check: bool = True, timeout: float = 120
    ) -> subprocess.CompletedProcess[str]:
        return run(*self.command_line(*words), check=check, timeout=timeout)

    def command_line(self, *words: object) -> list[str]:
        """Of this machine, to run something in that one."""
        return ["nsenter", f"--target={self._first}", "--all", "env", "-i", f"PATH={_PATH}",
                "DEBIAN_FRONTEND=noninteractive", "LC_ALL=C.UTF-8",
                *(str(word) for word in words)]  # fmt: skip

    def systemctl(self, *words: str, check: bool = True) -> str:
        return self.run("systemctl", *words, check=check).stdout.strip()

    def active(self, unit: str) -> bool:
        return self.systemctl("is-active", unit, check=False) == "active"

    def show(self, unit: str, name: str) -> str:
        """A property of a unit."""
        return self.systemctl("show", "--value", f"--property={name}", unit)

    def journal(self, unit: str) -> str:
        return self.run("journalctl", "--no-pager", "--output=cat", f"--unit={unit}").stdout

    def path(self, inside: str) -> Path:
        """A file of it as seen from here."""
        return Path(f"/proc/{self._first}/root") / inside.lstrip("/")

    def install(self, package: Path) -> None:
        """By apt, from what it has: there is no network."""
        shutil.copy(package, self.path("/") / package.name)
        self.run("apt-get", "-qq", "-y", "--no-install-recommends", "-o",
                 "Dpkg::Options::=--force-confold", "install", f"/{package.name}")  # fmt: skip
        (self.path("/") / package.name).unlink()

    @contextmanager
    def network(self) -> Iterator[None]:
        """This thread, and those that it starts, have the machine's addresses meanwhile."""
        with open("/proc/self/ns/net") as ours, open(f"/proc/{self._first}/ns/net") as theirs:
            _enter(theirs.fileno())
            try:
                yield
            finally:
                _enter(ours.fileno())


def _enter(namespace: int) -> None:
    if _libc.setns(namespace, _CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")
