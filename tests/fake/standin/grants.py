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


# What a repository-scoped token's scope map calls the actions.
MAP_ACTIONS = {
    "content/read": "pull",
    "content/write": "push",
    "content/delete": "delete",
    "metadata/read": "metadata_read",
    "metadata/write": "metadata_write",
}

# Which actions someone has in a repository.
Rights = Callable[[str], tuple[str, ...]]


def grant(scopes: list[Scope], rights: Rights, wildcard: bool = False) -> list[dict]:
    """The `access` claim: what was asked for and is not allowed is left out, silently.

    `wildcard` says whether `repository:*:..` means all repositories; in ABAC mode, and for all
    who do not have the same rights everywhere, it means nothing.
    """
    granted = []
    for scope in scopes:
        if scope.type != "repository":
            continue
        if scope.name == "*":
            allowed = PULLER_ACTIONS if wildcard else ()
        elif REPOSITORY.fullmatch(scope.name):
            allowed = rights(scope.name)
        else:
            continue
        actions = [a for a in allowed if a in scope.actions or "*" in scope.actions]
        if actions:
            granted.append({"type": "repository", "name": scope.name, "actions": actions})
    return granted


def map_rights(scopes: dict[str, list[str]], repository: str) -> tuple[str, ...]:
    """What a scope map gives in a repository; `*` stands only at the end of its names."""
    actions: list[str] = []
    for pattern, given in scopes.items():
        same = repository == pattern
        if same or (pattern.endswith("*") and repository.startswith(pattern[:-1])):
            actions += [MAP_ACTIONS[name] for name in given]
    return tuple(dict.fromkeys(actions))


def permits(access: list[dict], repository: str, actions: tuple[str, ...]) -> bool:
    return any(
        item["type"] == "repository"
        and item["name"] in (repository, "*")
        and any(action in item["actions"] for action in actions)
        for item in access
    )


def as_text(access: list[dict]) -> str:
    return " ".join(f"{a['type']}:{a['name']}:{','.join(a['actions'])}" for a in access)
