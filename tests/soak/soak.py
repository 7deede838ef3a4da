#!/usr/bin/python3
"""A daemon under mixed load, with something going wrong all the time, for as long as one likes.

    ./dev soak --minutes 60 [--seed 7] [--clients 16] [--json FILE] [--keep]

One staithed with a cache smaller than what is asked of it, before the Azure stand-in; clients that
do all that clients do; storms of random faults and calm between them; kills and restarts in the
first third, so that the memory of one process is seen over the other two. Everything is written
down (history.py), and judged at the end (checks.py). What is drawn is drawn from the seed.

Exit status 1 if a rule is broken: the seed, the violations with what happened around the first of
them, and where the logs and the history are.

    soak.py --judge build/soak/SEED/history.jsonl     judges a history again
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

_TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(_TESTS / "soak"), str(_TESTS / "e2e")]

import lab  # noqa: F401, E402 - which says where the other helpers are, and makes a SIGTERM orderly
from checks import Violation, judge  # noqa: E402
from content import Content, fill  # noqa: E402
from daemon import TOKEN_LIFE, SoakDaemon  # noqa: E402
from history import History  # noqa: E402
from load import Doors, Load  # noqa: E402
from node import Wrong  # noqa: E402
from process import Process  # noqa: E402
from report import figures, print_table  # noqa: E402
from staithed import REPOSITORY_ROOT  # noqa: E402
from standin.client import ControlClient  # noqa: E402
from storms import CALM_SECONDS, STORM_SECONDS, Storms, push_something  # noqa: E402
from watch import Watch  # noqa: E402

PUSH_SECONDS = 6.0
SHORT_CALM_SECONDS = 12.0
MOST_TOLD = 20
AROUND_SECONDS = 0.5
MOST_AROUND = 60


class Soak:
    def __init__(self, seed: int, clients: int, think: float, directory: Path) -> None:
        self.directory = directory
        self._stops: list[Callable[[], Any]] = []
        chance = random.Random(seed)
        self.history = History(directory / "history.jsonl")
        self._stops.append(self.history.close)
        self._content = Content(directory / "upstream", self.history, random.Random(seed + 1))
        self._stops.append(self._content.close)
        fill(self._content, chance, repositories=18, images=4)
        self._azure = self._start_azure()
        self._azure.set(
            denied=["contoso/secret"],
            aad_lifetime=600,
            refresh_lifetime=60,
            access_lifetime=TOKEN_LIFE,
            hub_lifetime=TOKEN_LIFE,
        )
        self.daemon = SoakDaemon(
            directory / "node", self._addresses, self.history, random.Random(seed + 2)
        )
        self.daemon.serves(self._content)
        self._stops.append(self.daemon.stop)
        self._storms = Storms(
            self._azure, self.daemon, self._content, self.history, random.Random(seed + 3)
        )
        doors = Doors(
            [str(self.daemon.registry_socket), ("127.0.0.1", self.daemon.port)], self.daemon.socket
        )
        self._load = Load(self._content, self.history, doors, seed, clients, think)
        self._watch = Watch(self.daemon, self._azure, self.history)
        self._pushing = threading.Event()
        self._pushes = threading.Thread(target=self._push, args=(random.Random(seed + 4),))

    def _start_azure(self) -> ControlClient:
        command = [
            "/usr/bin/python3", _TESTS / "fake/azure.py", "--dir", self.directory / "azure",
            "--origin", self._content.url, "--origin-root", self._content.root,
        ]  # fmt: skip
        log = self.directory / "azure.log"
        process = Process("azure", command, log, stdout=subprocess.PIPE)
        self._stops.append(process.stop)
        line = process.stdout.readline()
        if not line:
            process.wait(10)
            process.must_run()
        self._addresses = json.loads(line)
        return ControlClient(self._addresses["control"])

    def _push(self, chance: random.Random) -> None:
        while not self._pushing.wait(chance.expovariate(1 / PUSH_SECONDS)):
            pushed = push_something(self._content, chance)
            if pushed and chance.random() < 0.5:
                self._load.rush(*pushed)

    def run(self, seconds: float) -> None:
        """Storms and calms on this thread, since the daemon's life hangs on who started it."""
        begin = time.monotonic()
        end = begin + seconds
        calm = CALM_SECONDS if seconds >= 120 else SHORT_CALM_SECONDS
        self.daemon.begin()
        self._watch.start()
        self._load.start()
        self._pushes.start()
        try:
            while (now := time.monotonic()) < end:
                self._storms.with_ends = now < begin + seconds / 3
                left = end - now - calm
                if left > 0:
                    self._storms.storm(min(STORM_SECONDS, left))
                self._rest(min(end, time.monotonic() + calm))
                if self._watch.dead.is_set() or self._problems():
                    break
        finally:
            self._storms.end_all()
            self._load.stop()
            self._pushing.set()
            self._pushes.join()
            if not self.daemon.died_by_itself():
                self.daemon.end()
            self._watch.stop()
        for problem in self._problems():
            raise problem

    def _rest(self, until: float) -> None:
        while time.monotonic() < until and not self._watch.dead.is_set():
            time.sleep(0.1)

    def _problems(self) -> list[BaseException]:
        return self._load.problems + self._watch.problems

    def check_directory(self) -> list[Violation]:
        """What the daemon has left is whole, and what its index says."""
        try:
            self.daemon.check_files()
            self.daemon.check_index()
        except Wrong as wrong:
            return [Violation("files", time.time(), str(wrong))]
        return []

    def close(self) -> None:
        for stop in reversed(self._stops):
            stop()


def tell(violations: list[Violation], history: History, seed: int) -> None:
    """For a person: what is wrong, and what happened around the first of it."""
    count = Counter(violation.rule for violation in violations)
    print(f"seed {seed}: {len(violations)} violations: {dict(count)}", file=sys.stderr)
    for violation in violations[:MOST_TOLD]:
        print(f"  {violation.at:.3f} {violation}", file=sys.stderr)
    if violations:
        print("around the first:", file=sys.stderr)
        for thing in islice(history.around(violations[0].at, AROUND_SECONDS), MOST_AROUND):
            print(f"  {thing}", file=sys.stderr)


def soak(minutes: float, seed: int, clients: int, think: float, keep: bool) -> dict[str, Any]:
    """Gives the figures, with `violations`."""
    directory = Path(tempfile.mkdtemp(prefix="staithe-soak-"))
    try:
        this = Soak(seed, clients, think, directory)
        violations: list[Violation] = []
        failed = True
        try:
            this.run(minutes * 60)
            violations = this.check_directory()
            failed = False
        finally:
            this.close()
            violations += judge(this.history)
            found = figures(this.history, violations) | {"seed": seed, "minutes": minutes}
            if failed or violations or keep:
                kept = REPOSITORY_ROOT / f"build/soak/{seed}"
                kept.mkdir(parents=True, exist_ok=True)
                for file in (directory / "history.jsonl", this.daemon.log, directory / "azure.log"):
                    shutil.copy(file, kept / file.name)
                print(f"history and logs are in {kept}", file=sys.stderr)
            if violations:
                tell(violations, this.history, seed)
        return found
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--minutes", type=float, default=1.0)
    options.add_argument("--seed", type=int, default=int(time.time()))
    options.add_argument("--clients", type=int, default=16)
    options.add_argument("--think", type=float, default=0.15, help="seconds between two things")
    options.add_argument("--json", type=Path, help="where the figures go, besides the table")
    options.add_argument("--keep", action="store_true", help="the history, even if all is well")
    options.add_argument("--judge", type=Path, help="this history again; nothing runs")
    asked = options.parse_args()
    if asked.judge:
        history = History.read(asked.judge)
        violations = judge(history)
        found = figures(history, violations)
        tell(violations, history, 0)
    else:
        print(f"seed {asked.seed}", flush=True)
        found = soak(asked.minutes, asked.seed, asked.clients, asked.think, asked.keep)
    print_table(found)
    if asked.json:
        asked.json.write_text(json.dumps(found, indent=1) + "\n")
    return 1 if found["violations"] else 0


if __name__ == "__main__":
    sys.exit(main())
