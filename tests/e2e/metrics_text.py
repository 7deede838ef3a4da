"""Prometheus' text format, read as a scraper does."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator

_SAMPLE = re.compile(r"([a-z_]+)(?:\{(.*)\})? (\S+)")
_LABEL = re.compile(r'([a-z_]+)="((?:[^"\\]|\\.)*)"(?:,|$)')


class Scrape:
    """One answer of /metrics. `samples`: (name, labels) -> value."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.types: dict[str, str] = {}
        self.samples: dict[tuple[str, frozenset[tuple[str, str]]], float] = {}
        for line in text.splitlines():
            if line.startswith("# TYPE "):
                name, kind = line.removeprefix("# TYPE ").split(" ")
                self.types[name] = kind
            elif not line.startswith("#"):
                found = _SAMPLE.fullmatch(line)
                if not found:
                    raise ValueError(f"no sample: {line!r}")
                labels = frozenset(_LABEL.findall(found[2] or ""))
                self.samples[found[1], labels] = float(found[3])

    def family(self, name: str) -> str:
        base = re.sub(r"_(bucket|sum|count)$", "", name)
        return base if self.types.get(base) == "histogram" else name

    def sum(self, name: str, **labels: str) -> float:
        """Of all samples that have these labels; an empty sum is 0."""
        return sum(self.values(name, **labels))

    def values(self, name: str, **labels: str) -> Iterator[float]:
        wanted = set(labels.items())
        for (found, those), value in self.samples.items():
            if found == name and wanted <= those:
                yield value

    def counters(self) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
        return {
            key: value
            for key, value in self.samples.items()
            if self.types[self.family(key[0])] != "gauge"
        }


def promtool(*words: str, text: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["promtool", *words], input=text, capture_output=True, text=True, timeout=60, check=False
    )
