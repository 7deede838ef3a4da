"""The table of the question "as fast as the kernel allows": each row with its goal, Staithe beside
the others, from what bench_hit and bench_cold have measured in one run."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from measuring import markdown

Figures = dict[str, dict]  # (benchmark) -> its JSON
Cells = dict[str, float]  # by peer, medians

COLUMNS = ["staithe", "registry", "nginx", "nginx-slice", "varnish"]
COLUMNS += ["bare", "bare-memory", "direct"]


@dataclass(frozen=True)
class Question:
    name: str
    bench: str
    measure: str
    unit: str
    decimals: int
    goal: str  # in words
    is_met: Callable[[Cells], bool] | None


def _most(limit: float) -> Callable[[Cells], bool]:
    return lambda cells: cells["staithe"] <= limit


def _least(limit: float) -> Callable[[Cells], bool]:
    return lambda cells: cells["staithe"] >= limit


def _share_of(peer: str, share: float) -> Callable[[Cells], bool]:
    return lambda cells: cells["staithe"] >= share * cells[peer]


_HIT = "1 GiB blob, {}"
_CROWD = "32 clients, one cold 256 MiB"
_CHUNKS = "cold 256 MiB as 8 open-ended ranges"
_RANGE = "1 MiB range in a cold 1 GiB"
_LAYERS = "cold 20 x 20 MiB, 3 at a time"

QUESTIONS = [
    Question("hit, 1 GiB blob, 1 client, MiB/s", "hit", _HIT.format("1 client"), "MiB/s", 0,
             "0.97 of bare", _share_of("bare", 0.97)),
    Question("the same, 8 clients", "hit", _HIT.format("8 clients"), "MiB/s", 0,
             "at least nginx", _share_of("nginx", 1)),
    Question("the same, 64 clients", "hit", _HIT.format("64 clients"), "MiB/s", 0,
             "at least nginx", _share_of("nginx", 1)),
    Question("server CPU s per GiB, 8 clients", "hit", _HIT.format("8 clients"), "CPU s/GiB", 3,
             "at most 0.12", _most(0.12)),
    Question("RSS with 64 clients, MiB", "hit", _HIT.format("64 clients"), "RSS MiB", 1,
             "at most 24", _most(24)),
    Question("manifest by digest, 64 connections, requests/s", "hit",
             "manifest by digest, 64 connections", "requests/s", 0, "at least 100,000",
             _least(100_000)),
    Question("the same, 1 connection, p50 us", "hit", "manifest by digest, 1 connection",
             "p50 us", 0, "at most 65", _most(65)),
    Question("HEAD manifest by tag, 64 connections, requests/s", "hit",
             "HEAD manifest by tag, 64 connections", "requests/s", 0, "at least 110,000",
             _least(110_000)),
    Question("blobs of 4-64 KiB, 64 connections, requests/s", "hit",
             "blobs of 4-64 KiB, 64 connections", "requests/s", 0, "at least 55,000",
             _least(55_000)),
    Question("cold 1 GiB, through / direct", "cold", "cold 1 GiB", "/ direct", 2, "at most 1.1",
             _most(1.1)),
    Question("the same over the long link", "cold", "cold 1 GiB, LINK", "/ direct", 2,
             "at most 1.01", _most(1.01)),
    Question("cold 20 x 20 MiB, 3 at a time, / direct", "cold", _LAYERS, "/ direct", 2,
             "at most 1.35", _most(1.35)),
    Question("32 clients, one cold 256 MiB: upstream GETs", "cold", _CROWD, "upstream GETs", 0,
             "1", _most(1)),
    Question("the same: upstream MiB", "cold", _CROWD, "upstream MiB", 0, "256", _most(256)),
    Question("the same: s", "cold", _CROWD, "s", 2, "at most 0.8", _most(0.8)),
    Question("the same: first byte, median ms", "cold", _CROWD, "first byte, median ms", 1,
             "at most 10", _most(10)),
    Question("256 MiB cold as 8 open-ended ranges: upstream MiB", "cold", _CHUNKS, "upstream MiB",
             0, "256", _most(256)),
    Question("the same: s", "cold", _CHUNKS, "s", 2, "at most 0.2", _most(0.2)),
    Question("the same: status", "cold", _CHUNKS, "status", 0, "206", _least(206)),
    Question("first byte of 1 MiB in a cold 1 GiB, ms", "cold", _RANGE, "first byte, median ms",
             1, "at most 5", _most(5)),
    Question("the same: status", "cold", _RANGE, "status", 0, "206", _least(206)),
    Question("first byte of a miss of 1 MiB, ms", "cold", "miss of 1 MiB",
             "first byte, median ms", 1, "", None),
    Question("idle RSS, MiB", "hit", "idle, just started", "RSS MiB", 1, "at most 12", _most(12)),
]  # fmt: skip


def figures_of(results: Path) -> Figures:
    return {
        file.stem: json.loads(file.read_text(encoding="utf-8"))
        for file in sorted(results.glob("*.json"))
    }


def cells_of(question: Question, figures: Figures) -> Cells:
    """The medians by peer; nothing if it was not measured."""
    for row in figures.get(question.bench, {}).get("rows", []):
        if row["unit"] == question.unit and _is(row["measure"], question.measure):
            return {peer: found["median"] for peer, found in row["peers"].items()}
    return {}


def _is(measure: str, asked: str) -> bool:
    """The row of the long link names its delay and its rate."""
    begin = asked.removesuffix("LINK")
    return measure == asked or (begin != asked and measure.startswith(begin))


def verdict(question: Question, cells: Cells) -> str:
    if not question.is_met or "staithe" not in cells:
        return ""
    try:
        return "yes" if question.is_met(cells) else "no"
    except KeyError:  # The peer that it is compared with was not measured.
        return ""


def summary_table(figures: Figures) -> str:
    rows = [(question, cells_of(question, figures)) for question in QUESTIONS]
    columns = [peer for peer in COLUMNS if any(peer in cells for _, cells in rows)]
    lines = [["measure", "goal", "met", *columns]]
    for question, cells in rows:
        if not cells:
            continue
        numbers = [
            f"{cells[peer]:,.{question.decimals}f}" if peer in cells else "" for peer in columns
        ]
        lines.append([question.name, question.goal, verdict(question, cells), *numbers])
    return markdown(lines, left=3)
