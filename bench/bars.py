"""Plots of the table: for each row a group of bars, one for each server, Staithe's in colour."""

from __future__ import annotations

from html import escape
from pathlib import Path

from summary import COLUMNS, QUESTIONS, Cells, Figures, Question, cells_of

_WIDTH = 760
_LEFT = 110
_BAR = 14
_GAP = 4
_TITLE = 26
_COLOURS = {"staithe": "#0b6e99", "bare": "#b8b8b8", "bare-memory": "#b8b8b8", "direct": "#b8b8b8"}
_OTHER = "#8a9a8f"


def write_bars(figures: Figures, directory: Path) -> None:
    """hits.svg and cold.svg, of what was measured of them."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, bench in (("hits", "hit"), ("cold", "cold")):
        rows = [(q, cells_of(q, figures)) for q in QUESTIONS if q.bench == bench]
        rows = [(q, cells) for q, cells in rows if cells and q.unit != "status"]
        if rows:
            (directory / f"{name}.svg").write_text(_svg(rows), encoding="utf-8")


def _full_name(number: int, rows: list[tuple[Question, Cells]]) -> str:
    """"The same" refers to the row that has a name of its own."""
    name = rows[number][0].name
    if not name.startswith("the same"):
        return name
    for before in range(number - 1, -1, -1):
        if not (found := rows[before][0].name).startswith("the same"):
            rest = name.removeprefix("the same").lstrip(":,").strip()
            return f"{found.partition(':')[0]}: {rest}"
    return name


def _svg(rows: list[tuple[Question, Cells]]) -> str:
    parts = []
    y = 10
    for number, (question, cells) in enumerate(rows):
        goal = f" (goal: {question.goal})" if question.goal else ""
        parts.append(
            f'<text x="4" y="{y + 16}" class="title">'
            f"{escape(_full_name(number, rows) + goal)}</text>"
        )
        y += _TITLE
        most = max(cells.values()) or 1
        for peer in COLUMNS:
            if peer not in cells:
                continue
            width = max(1.0, cells[peer] / most * (_WIDTH - _LEFT - 110))
            text = f"{cells[peer]:,.{question.decimals}f}"
            parts.append(
                f'<text x="{_LEFT - 8}" y="{y + 11}" text-anchor="end">{escape(peer)}</text>'
                f'<rect x="{_LEFT}" y="{y}" width="{width:.1f}" height="{_BAR}" '
                f'fill="{_COLOURS.get(peer, _OTHER)}"/>'
                f'<text x="{_LEFT + width + 6:.1f}" y="{y + 11}">{text}</text>'
            )
            y += _BAR + _GAP
        y += 12
    style = "text{font:12px sans-serif;fill:#222}.title{font-weight:bold}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{y}" '
        f'viewBox="0 0 {_WIDTH} {y}">\n<style>{style}</style>\n'
        f'<rect width="{_WIDTH}" height="{y}" fill="#fff"/>\n' + "\n".join(parts) + "\n</svg>\n"
    )
