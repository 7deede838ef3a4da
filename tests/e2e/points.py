"""Points: places where something is broken on purpose, numbered so that each can be tried again.

Environment: STAITHE_POINTS, how many; STAITHE_SEED, what they and the images are drawn from;
STAITHE_POINT, one point alone, by the name that a failure has printed.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

MOST_FAILURES = 5


def wanted(default: int) -> int:
    return int(os.environ.get("STAITHE_POINTS", default))


def seed() -> int:
    return int(os.environ.get("STAITHE_SEED", 1))


def only_point() -> str | None:
    return os.environ.get("STAITHE_POINT")


def fast_directory(prefix: str) -> Path:
    """In memory where that is possible: a kill loses no more there than on a disk, and a sync
    costs nothing. The name is short: paths of Unix sockets have little room."""
    memory = Path("/dev/shm")
    place = memory if os.access(memory, os.W_OK) and _free(memory) > 1 << 30 else None
    return Path(tempfile.mkdtemp(prefix=prefix, dir=place))


def _free(directory: Path) -> int:
    return shutil.disk_usage(directory).free


class Tally:
    """What was tried and what came of it; prints one line at the end."""

    def __init__(self, name: str) -> None:
        self._name = name
        self.points = 0
        self.counts: Counter[str] = Counter()
        self.failures: list[str] = []

    def run(self, points: Iterable[str], try_point: Callable[[str], None], log: Path) -> None:
        """Tries each until too many have failed."""
        for point in points:
            self.points += 1
            try:
                try_point(point)
            except Exception as error:
                ours = not isinstance(error, AssertionError)
                sentence = traceback.format_exc() if ours else str(error)
                self.failures.append(f"{point}: {sentence}")
                print(f"FAILED {point} (STAITHE_SEED={seed()} STAITHE_POINT={point}): {sentence}")
                self._print_end_of(log)
                if len(self.failures) >= MOST_FAILURES:
                    break
        self.print()

    def print(self) -> None:
        counts = "".join(f", {number} {what}" for what, number in sorted(self.counts.items()))
        print(
            f"{self._name}: {self.points} points with seed {seed()}{counts}, "
            f"{len(self.failures)} failures",
            flush=True,
        )

    @staticmethod
    def _print_end_of(log: Path) -> None:
        if log.is_file():
            lines = log.read_text(errors="replace").splitlines()
            told = [line for line in lines if " debug " not in line] + lines[-2:]
            print(*(f"    {line[:240]}" for line in told[-6:]), sep="\n", flush=True)
