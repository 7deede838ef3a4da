"""Programs that a lab starts: a log for each, an end for each, by its own pid."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


class Process:
    """A program that runs until it is stopped. Its output goes to one file.

    `outlive` is for a demo that is left standing; all others die with the test, even when the
    test itself is killed.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str | Path],
        log: Path,
        env: dict[str, str] | None = None,
        outlive: bool = False,
        stdout: int | None = None,
    ) -> None:
        self.name = name
        self.log = log
        with open(log, "ab") as out:
            self._child = subprocess.Popen(
                [str(word) for word in command],
                stdin=subprocess.DEVNULL,
                stdout=stdout if stdout is not None else out,
                stderr=out,
                env={**os.environ, **(env or {})},
                start_new_session=outlive,
                preexec_fn=None if outlive else _die_with_parent,
            )

    @property
    def pid(self) -> int:
        return self._child.pid

    @property
    def stdout(self):
        return self._child.stdout

    def exit_code(self) -> int | None:
        return self._child.poll()

    def must_run(self) -> None:
        code = self._child.poll()
        if code is not None:
            raise RuntimeError(f"{self.name} ended with {code}:\n{self.tail(20)}")

    def signal(self, number: int) -> None:
        self._child.send_signal(number)

    def kill(self) -> None:
        """kill -9: what a crash is to everything that it left behind."""
        self._child.kill()
        self._child.wait()

    def stop(self, seconds: float = 20) -> int:
        """SIGTERM, and SIGKILL if that is not enough in time; gives the exit code."""
        if self._child.poll() is None:
            self._child.send_signal(signal.SIGTERM)
            try:
                self._child.wait(seconds)
            except subprocess.TimeoutExpired:
                self._child.kill()
        code = self._child.wait()
        if self._child.stdout:
            self._child.stdout.close()
        return code

    def wait(self, seconds: float) -> int:
        return self._child.wait(seconds)

    def tail(self, lines: int) -> str:
        if not self.log.is_file():
            return ""
        text = self.log.read_text(errors="replace").splitlines()
        return "\n".join(text[-lines:])


def _die_with_parent() -> None:
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def in_place_of_others(mounts: dict[str, Path]) -> list[str | Path]:
    """What runs a program among mounts of its own: each target (a file or directory) is seen as
    its source. A target that does not exist is made in a directory of the program's own, over the
    nearest one that does. Needs root; nobody else sees them."""
    if not mounts:
        return []
    words: list[str | Path] = []
    for target, source in mounts.items():
        words += [source, target]
    script = """set -e
        while [ "$1" != -- ]; do
          if [ ! -e "$2" ]; then
            above=$(dirname "$2")
            while [ ! -d "$above" ]; do above=$(dirname "$above"); done
            mount -t tmpfs none "$above"
            mkdir -p "$2"
          fi
          mount --bind "$1" "$2"
          shift 2
        done
        shift
        exec "$@"
    """
    return ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh",
            *words, "--"]  # fmt: skip
