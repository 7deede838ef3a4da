"""What goes wrong in a soak: storms of random faults, one every second or two, and calm between.

A fault is begun and ended by this file; what it does is done by the Azure stand-in's fault rules
and settings, by the library that breaks calls to the disk (tests/crash/disk_calls.cc), by signals, and
by changes of what there is upstream. Each is in the history from before its begin until after its
end. One thread's.
"""

from __future__ import annotations

import errno
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import disk_calls
from content import Content, Repository, layer_sizes
from disk_calls import FAIL, OPENING, READING, WRITING, DiskCalls
from history import Faulted, History
from standin.client import ControlClient

DATA = r"/v2/.+"
# Long enough for everything to come back and then to be seen to be well.
CALM_SECONDS = 17.0
STORM_SECONDS = 16.0
LONGEST_FAULT = 5.0


@dataclass
class Fault:
    name: str
    kind: str
    begin: Callable[[], None]
    end: Callable[[], None] = lambda: None
    # Of these at most one at a time: they would undo each other.
    group: str = ""
    seconds: tuple[float, float] = (0.5, LONGEST_FAULT)


@dataclass
class Running:
    fault: Fault
    began: float
    until: float  # monotonic
    rules: list[dict[str, Any]] = field(default_factory=list)


class Daemon(Protocol):
    """What a storm does to the daemon itself."""

    calls: DiskCalls

    def kill_and_start(self, at_call: int) -> None: ...
    def stop_and_start(self) -> None: ...
    def reload(self, good: bool) -> None: ...


class Storms:
    def __init__(
        self,
        azure: ControlClient,
        daemon: Daemon,
        content: Content,
        history: History,
        chance: random.Random,
    ) -> None:
        self._azure = azure
        self._daemon = daemon
        self._content = content
        self._history = history
        self._chance = chance
        self._rules: dict[str, dict[str, Any]] = {}
        self._down: set[str] = set()
        self._running: list[Running] = []
        self.count = 0
        self.with_ends = True  # of the daemon: kills and restarts

    def storm(self, seconds: float) -> None:
        """Faults for so long, several at a time; returns when all are over."""
        end = time.monotonic() + seconds
        while (now := time.monotonic()) < end:
            self._end_those_over(now)
            self._begin_one(min(end, now + LONGEST_FAULT))
            self._wait(min(end, time.monotonic() + self._chance.uniform(0.8, 2.5)))
        self._wait(max((running.until for running in self._running), default=0.0))
        self.end_all()

    def end_all(self) -> None:
        self._end_those_over(float("inf"))
        # Whoever hangs in a silent answer is let go.
        self._azure.forget("(hang)")

    def _wait(self, until: float) -> None:
        while (now := time.monotonic()) < until:
            self._end_those_over(now)
            time.sleep(min(0.1, until - now))

    def _begin_one(self, end: float) -> None:
        taken = {running.fault.group for running in self._running}
        possible = [f for f in self._faults() if not f.group or f.group not in taken]
        if not possible:
            return
        fault = self._chance.choice(possible)
        seconds = min(self._chance.uniform(*fault.seconds), max(0.1, end - time.monotonic()))
        began = time.time()
        fault.begin()
        self.count += 1
        self._running.append(Running(fault, began, time.monotonic() + seconds))

    def _end_those_over(self, now: float) -> None:
        for running in [r for r in self._running if r.until <= now]:
            running.fault.end()
            self._running.remove(running)
            fault = running.fault
            self._history.add(Faulted(fault.name, fault.kind, running.began, time.time()))

    # ---- what there is -------------------------------------------------------------------------

    def _faults(self) -> list[Fault]:
        found = [*self._of_the_network(), *self._of_lies(), *self._of_tokens()]
        found += [*self._of_the_disk(), *self._of_rights()]
        found.append(self._reload(good=True))
        found.append(self._reload(good=False))
        if self.with_ends:
            found += [self._kill(), self._kill(), self._restart()]
        return found

    def _rule(
        self, name: str, kind: str, role: str, path: str, group: str = "", **action: Any
    ) -> Fault:
        times = self._chance.choice((-1, -1, 1, 3))
        rule = {"name": name, "role": role, "path": path, "times": times, "action": action}

        def begin() -> None:
            self._rules[name] = rule
            self._azure.faults(*self._rules.values())

        def end() -> None:
            self._rules.pop(name, None)
            self._azure.faults(*self._rules.values())

        return Fault(name, kind, begin, end, group=group or name)

    def _gone(self, role: str, group: str = "") -> Fault:
        def set_down() -> None:
            self._azure.set(down=sorted(self._down))

        def begin() -> None:
            self._down.add(role)
            set_down()

        def end() -> None:
            self._down.discard(role)
            set_down()

        name = f"{role} refuses connections"
        return Fault(name, "network", begin, end, group=group or f"down {role}")

    def _of_the_network(self) -> list[Fault]:
        chance = self._chance
        retry_after = {"Retry-After": str(chance.randint(1, 3))}
        at = int(chance.lognormvariate(10.5, 1.5))
        found = [self._gone(role) for role in ("acr", "hub", "storage")]
        for role in ("acr", "hub"):
            found += [
                self._rule(f"{role} 429", "network", role, DATA, status=429, headers=retry_after),
                self._rule(f"{role} 503", "network", role, DATA, status=503),
                self._rule(f"{role} 500", "network", role, DATA, status=500),
                self._rule(f"{role} slow", "network", role, DATA, delay=chance.uniform(0.2, 2)),
                self._rule(f"{role} silent", "network", role, DATA, hang=True),
                self._rule(f"{role} resets", "network", role, DATA, reset=-1),
            ]
        for name, action in (
            ("storage 503", {"status": 503, "headers": retry_after}),
            ("storage 500", {"status": 500}),
            ("storage silent", {"hang": True}),
            ("storage resets", {"reset": at}),
            ("storage closes", {"close": at}),
            ("storage resets at once", {"reset": -1}),
            ("storage drips", {"rate": chance.choice((400, 1_000_000))}),
            ("storage slow", {"delay": chance.uniform(0.2, 2)}),
        ):
            found.append(self._rule(name, "network", "storage", "", **action))
        found.append(
            Fault(
                "links have expired", "network",
                lambda: self._azure.set(link_lifetime=-2),
                lambda: self._azure.set(link_lifetime=1200),
                group="links",
            )
        )  # fmt: skip
        return found

    def _of_lies(self) -> list[Fault]:
        chance = self._chance
        nonsense = {"status": 200, "body": "no manifest", "headers": {"Content-Type": "text/plain"}}
        away = "https://stranger.test/blob"
        found = [
            self._rule("manifests are nonsense", "lie", "acr", r"/v2/.+/manifests/.+", **nonsense),
            self._rule("redirects to a stranger", "lie", "acr", r"/v2/.+/blobs/.+", redirect=away),
        ]
        for name, action in (
            ("storage sends a wrong byte", {"flip": int(chance.lognormvariate(10, 2))}),
            ("storage sends too little", {"shorten": chance.randint(1, 5000)}),
            ("storage sends too much", {"lengthen": chance.randint(1, 5000)}),
            ("storage hides the range", {"drop_headers": ["Content-Range"]}),
            ("storage hides its names", {"drop_headers": ["ETag", "Last-Modified"]}),
            ("storage tells another range", {"add_headers": {"Content-Range": "bytes 7-9/12"}}),
        ):
            found.append(self._rule(name, "lie", "storage", "", **action))
        return found

    def _of_tokens(self) -> list[Fault]:
        """Entra's own tokens are refused by nobody here, and so the metadata service fails only
        while nothing depends on it: where something does, a new one is asked for by a schedule of
        up to a minute, as the platform would give the same one again (proxy/auth/acr.cc)."""
        found = [self._gone("imds", group="imds"), self._gone("auth")]
        for name, role, path, action in (
            ("registry's tokens 503", "acr", "/oauth2/", {"status": 503}),
            ("registry's tokens 429", "acr", "/oauth2/",
             {"status": 429, "headers": {"Retry-After": "2"}}),
            ("registry's tokens are nonsense", "acr", "/oauth2/", {"status": 200, "body": "{"}),
            ("registry's tokens are late", "acr", "/oauth2/", {"delay": 2.0}),
            ("the Hub's tokens 500", "auth", "", {"status": 500}),
        ):  # fmt: skip
            found.append(self._rule(name, "token", role, path, **action))
        for name, action in (
            ("metadata service 500", {"status": 500}),
            ("metadata service 429", {"status": 429}),
            ("metadata service 410", {"status": 410}),
            ("metadata service silent", {"hang": True}),
            ("metadata service is nonsense", {"status": 200, "body": "<html>"}),
        ):
            found.append(self._rule(name, "token", "imds", "", group="imds", **action))
        for kind in ("access", "refresh"):
            name = f"all {kind} tokens are refused"
            found.append(Fault(name, "token", lambda k=kind: self._azure.revoke(k)))
        return found

    def _of_the_disk(self) -> list[Fault]:
        calls, chance = self._daemon.calls, self._chance

        def fault(name: str, code: int, only: tuple[str, ...], times: int, most: float) -> Fault:
            def begin() -> None:
                calls.arm(chance.randint(1, 20), FAIL, error=code, only=only, times=times)

            return Fault(name, "disk", begin, calls.disarm, group="disk", seconds=(0.3, most))

        always = disk_calls.ALWAYS
        return [
            fault("disk full", errno.ENOSPC, (*WRITING, *OPENING), always, LONGEST_FAULT),
            fault("quota used up", errno.EDQUOT, WRITING, always, LONGEST_FAULT),
            fault("disk does not write", errno.EIO, ("write", "sync"), always, 3.0),
            fault("a write fails", errno.EIO, WRITING, 1, 1.0),
            fault("a read fails", errno.EIO, READING, chance.randint(1, 5), 1.0),
            fault("syncs fail", errno.EIO, ("sync",), chance.randint(1, 4), 2.0),
            fault("read-only disk", errno.EROFS, (*WRITING, *OPENING), always, 3.0),
            fault("calls are interrupted", errno.EINTR, ("read", "write", "sendfile"), 50, 2.0),
        ]

    def _of_rights(self) -> list[Fault]:
        """No faults of anything, and over at once: the daemon has to follow."""
        team = self._content.repositories["team"]

        def turn() -> None:
            allowed = not team.allowed
            denied = ["contoso/secret"] + ([] if allowed else ["contoso/team"])
            # Written down when it is sure: a right from before it is used, a loss from after it.
            if allowed:
                self._content.rule(team, True)
            self._azure.set(denied=denied)
            if not allowed:
                self._content.rule(team, False)

        return [Fault("a right is given or taken", "content", turn, seconds=(0.0, 0.1))]

    def _kill(self) -> Fault:
        at_call = self._chance.choice((0, 0, self._chance.randint(1, 200)))
        return Fault(
            "killed", "life", lambda: self._daemon.kill_and_start(at_call), group="disk",
            seconds=(0.0, 0.1),
        )  # fmt: skip

    def _restart(self) -> Fault:
        return Fault(
            "restarted", "life", self._daemon.stop_and_start, group="disk", seconds=(0.0, 0.1)
        )

    def _reload(self, good: bool) -> Fault:
        name = "reloaded" if good else "reloaded with a faulty configuration"
        return Fault(
            name, "configuration", lambda: self._daemon.reload(good), group="reload",
            seconds=(0.0, 0.1),
        )  # fmt: skip


def push_something(content: Content, chance: random.Random) -> tuple[Repository, str] | None:
    """What goes on upstream in any weather: new images, tags that move, go, and come back. Gives
    where there is an image of which nobody has anything yet."""
    names = [name for name in content.repositories if name not in ("secret", "large")]
    repository = content.repositories[chance.choice(names)]
    tag = f"v{chance.randrange(4)}"
    what = chance.random()
    if what < 0.5:
        content.move(repository, tag, content.make(repository, layer_sizes(chance, 3, 60)))
        return repository, tag
    if what < 0.85:
        content.move(repository, tag, chance.choice(list(repository.images.values())))
    elif tag in repository.tags and len(repository.tags) > 1:
        content.move(repository, tag, None)
    return None
