"""Scopes: what was asked for, and what of it is granted."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from .origin import REPOSITORY

SCOPE = re.compile(r"(?P<type>[a-z]+(?:\([a-z]+\))?):(?P<name>[^ ]+):(?P<actions>[a-z_*,]*)")
PULLER_ACTIONS = ("pull", "metadata_read")


class BadScope(Exception):
    pass


@dataclass(frozen=True)
class Scope:
    type: str
    name: str
    actions: tuple[str, ...]

    def text(self) -> str:
        return f"{self.type}:{self.name}:{','.join(self.actions)}"


def parse(fields: list[str]) -> list[Scope]:
    """Scopes may come in repeated fields and, separated by spaces, in one."""
    scopes = []
    for text in " ".join(fields).split():
        found = SCOPE.fullmatch(text)
        if not found or not found["actions"]:
            raise BadScope(f"bad scope {text!r}")
        scopes.append(Scope(found["type"], found["name"], tuple(found["actions"].split(","))))
    return scopes


def grant(scopes: list[Scope], allowed: Callable[[str], bool]) -> list[dict]:
    """The `access` claim for one who may pull: what was not allowed is left out, silently."""
    granted = []
    for scope in scopes:
        # `repository:*:*` falls through here, as in ABAC mode.
        if scope.type != "repository" or not REPOSITORY.fullmatch(scope.name):
            continue
        if not allowed(scope.name):
            continue
        if "*" in scope.actions:
            actions = list(PULLER_ACTIONS)
        else:
            actions = [a for a in scope.actions if a in PULLER_ACTIONS]
        if actions:
            granted.append({"type": "repository", "name": scope.name, "actions": actions})
    return granted


def permits(access: list[dict], repository: str, actions: tuple[str, ...]) -> bool:
    return any(
        item["type"] == "repository"
        and item["name"] == repository
        and any(action in item["actions"] for action in actions)
        for item in access
    )


def as_text(access: list[dict]) -> str:
    return " ".join(f"{a['type']}:{a['name']}:{','.join(a['actions'])}" for a in access)
