"""The daemon of a soak: one directory through many lives, with what ends them in the history."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path
from typing import Any

from content import ACR, HUB, Content
from disk_calls import KILL_BEFORE
from history import Configured, History, Lived
from node import Node
from staithed import Staithed, toml

MIB = 1 << 20
# Smaller than what is asked for, so that something has to go all the time.
MAX_SIZES = (40 * MIB, 48 * MIB)
TOKEN_LIFE = 40.0
TAG_TTLS = (1.0, 2.0)
FAULTY = '\n[limits]\nconnections = "many"\n'


class SoakDaemon(Node):
    """Lives on the thread that made it, but for note_death() and what it is asked by its sockets."""

    def __init__(
        self, directory: Path, azure: dict[str, Any], history: History, chance: random.Random
    ) -> None:
        self._azure = azure
        self._history = history
        self._chance = chance
        self._content: Content | None = None
        self._ends = False  # it is being ended, on purpose
        super().__init__(directory, origin=None, max_size=MAX_SIZES[1])  # type: ignore[arg-type]
        self.counted = True
        self.configured(
            {
                "log": {"level": "info", "format": "text"},
                "freshness": {"tag_ttl": "0s", "serve_stale": "1d"},
                "limits": {
                    "header_timeout": "3s",
                    "idle_timeout": "10s",
                    "upstream_connect": "1s",
                    "upstream_first_byte": "3s",
                    "upstream_stall": "2s",
                },
            }
        )
        self.config["listen"]["registry"].append(self.address)
        self._set_ttl(TAG_TTLS[1])

    def _default_config(self, azure: dict[str, Any]) -> dict[str, Any]:
        return Staithed._default_config(self, self._azure)

    def _set_ttl(self, seconds: float) -> None:
        self._ttl = seconds
        self.registry(ACR)["freshness"] = {"tag_ttl": f"{int(seconds * 1000)}ms"}

    def serves(self, content: Content) -> None:
        self._content = content

    # ---- its lives -----------------------------------------------------------------------------

    def begin(self) -> None:
        self._note_configuration()
        self.start()
        self._ends = False
        self._note("ready")

    def kill_and_start(self, at_call: int) -> None:
        """`at_call`: right before so many calls to the disk from now, if they come soon; 0: now."""
        self._begin_to_end()
        if at_call:
            self.calls.arm(at_call, KILL_BEFORE)
            deadline = time.monotonic() + 2
            while not self.is_dead() and time.monotonic() < deadline:
                time.sleep(0.01)
        self.process.kill()
        if self.process.exit_code() != -signal.SIGKILL:
            self.note_death()
        self._note("killed")
        self.calls.disarm()
        self.begin()

    def stop_and_start(self) -> None:
        self.end()
        self.begin()

    def end(self) -> None:
        self._begin_to_end()
        code = self.stop()
        self._note("stopped", str(code))

    def _begin_to_end(self) -> None:
        if self.died_by_itself():
            self.note_death()
        self._ends = True

    def note_death(self) -> None:
        self._note("died", f"{self.process.exit_code()}: {self.process.tail(5)}")

    def is_dead(self) -> bool:
        return self._process is not None and self._process.exit_code() is not None

    def died_by_itself(self) -> bool:
        return self.is_dead() and not self._ends

    def reload(self, good: bool) -> None:
        if good:
            self.config["cache"]["max_size"] = self._chance.choice(MAX_SIZES)
            self._set_ttl(self._chance.choice(TAG_TTLS))
            self._note_configuration()
        self.config_file.write_text(toml(self.config) + ("" if good else FAULTY))
        os.kill(self.process.pid, signal.SIGHUP)
        if not good:
            # It has been read by the time the good one is there again, or the good one is read.
            time.sleep(0.2)
            self.config_file.write_text(toml(self.config))

    def _note(self, what: str, note: str = "") -> None:
        self._history.add(Lived(what, time.time(), self.process.pid, note))

    def _note_configuration(self) -> None:
        repositories = self._content.repositories.values() if self._content else ()
        self._history.add(
            Configured(
                time.time(),
                self.config["cache"]["max_size"],
                {r.name: 0.0 if r.registry == HUB else self._ttl for r in repositories},
                TOKEN_LIFE,
            )
        )
