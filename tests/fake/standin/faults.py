"""Faults on request: rules that a test sets, and named barriers that it opens.

A rule names the requests it is for (role, method, host, a regular expression for the path), how
many of them to let pass first (`skip`), how many to strike (`times`, -1 for all) or for how long
from the first strike on (`lasts`, seconds; absent: for ever), and one action:

    status, headers, body   this answer instead of the true one
    echo                    true: with `status`, the body quotes every secret of the request, as
                            some servers do to explain themselves
    redirect                307 to this URL
    delay                   seconds to wait before the true answer
    hang                    true: no answer at all until the stand-in stops
    hold, after             stop after `after` body bytes (with headers; absent: before the
                            headers) until POST /release?name=<hold>
    hold, at                the same before this byte of the blob, in whichever range has it
    close, reset            FIN or RST after this many body bytes; -1: before the headers
    rate                    body bytes per second
    flip                    the byte at this offset of the body is changed
    shorten, lengthen       the body and its Content-Length are this many bytes off
    drop_headers            names of response headers to leave out
    add_headers             response headers to add

Several keys may stand in one action where they make sense together (`rate` and `close`).
"""

from __future__ import annotations

import math
import re
import threading
import time
from dataclasses import dataclass, field
from typing import Any

ACTIONS = {
    "status", "headers", "body", "echo", "redirect", "delay", "hang", "hold", "after", "at", "close",
    "reset", "rate", "flip", "shorten", "lengthen", "drop_headers", "add_headers",
}  # fmt: skip
RULE_KEYS = {"role", "method", "host", "path", "skip", "times", "lasts", "action", "name"}


@dataclass
class Rule:
    name: str
    role: str
    method: str
    host: str
    path: re.Pattern
    skip: int
    times: int
    action: dict[str, Any]
    lasts: float = math.inf
    struck: int = 0
    ends: float = math.inf  # monotonic

    @staticmethod
    def parse(source: dict[str, Any]) -> Rule:
        unknown = set(source) - RULE_KEYS
        action = source.get("action", {})
        unknown |= set(action) - ACTIONS
        if unknown:
            raise ValueError(f"unknown in a fault rule: {', '.join(sorted(unknown))}")
        if not action:
            raise ValueError("a fault rule needs an action")
        return Rule(
            name=source.get("name", " ".join(sorted(action))),
            role=source.get("role", ""),
            method=source.get("method", ""),
            host=source.get("host", ""),
            path=re.compile(source.get("path", "")),
            skip=int(source.get("skip", 0)),
            times=int(source.get("times", -1)),
            action=dict(action),
            lasts=float(source.get("lasts", math.inf)),
        )

    def matches(self, role: str, method: str, host: str, target: str) -> bool:
        return (
            self.role in ("", role)
            and self.method in ("", method)
            and self.host in ("", host)
            and self.path.search(target) is not None
        )


class Faults:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._rules: list[Rule] = []

    def replace(self, sources: list[dict[str, Any]]) -> None:
        rules = [Rule.parse(source) for source in sources]
        with self._lock:
            self._rules = rules

    def strike(self, role: str, method: str, host: str, path: str) -> Rule | None:
        """The first rule for this request that has something left to do, used up by one."""
        with self._lock:
            for rule in self._rules:
                if rule.times == 0 or not rule.matches(role, method, host, path):
                    continue
                if rule.skip > 0:
                    rule.skip -= 1
                    continue
                if rule.struck == 0:
                    rule.ends = time.monotonic() + rule.lasts
                if time.monotonic() > rule.ends:
                    continue
                if rule.times > 0:
                    rule.times -= 1
                rule.struck += 1
                return rule
        return None

    def as_json(self) -> list[dict[str, Any]]:
        with self._lock:
            return [
                {"name": r.name, "struck": r.struck, "times": r.times, "action": r.action}
                for r in self._rules
            ]


@dataclass
class _Barrier:
    open: bool = False
    waiting: int = 0
    arrived: int = field(default=0)  # all that ever came, released or not


class Barriers:
    """Where requests wait until a test says go. A released barrier stays open."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._barriers: dict[str, _Barrier] = {}
        self._stopped = False

    def hold(self, name: str) -> None:
        with self._changed:
            barrier = self._barriers.setdefault(name, _Barrier())
            barrier.waiting += 1
            barrier.arrived += 1
            self._changed.notify_all()
            self._changed.wait_for(lambda: barrier.open or self._stopped)
            barrier.waiting -= 1
            self._changed.notify_all()

    def release(self, name: str) -> None:
        with self._changed:
            self._barriers.setdefault(name, _Barrier()).open = True
            self._changed.notify_all()

    def wait_until_held(self, name: str, count: int, timeout: float) -> int:
        """Waits until `count` requests have come to the barrier; returns how many have."""
        with self._changed:
            barrier = self._barriers.setdefault(name, _Barrier())
            self._changed.wait_for(lambda: barrier.arrived >= count, timeout)
            return barrier.arrived

    def close_again(self, name: str) -> None:
        """Makes the name usable anew; those who wait behind the old one are let go."""
        with self._changed:
            old = self._barriers.pop(name, None)
            if old:
                old.open = True
            self._changed.notify_all()

    def stop(self) -> None:
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
