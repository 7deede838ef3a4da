"""What the benchmarks with real clients share: the table and its JSON as bench/report.h has them,
a loopback of their own as bench/network.h, and what a command took."""

from __future__ import annotations

import argparse
import ctypes
import fcntl
import json
import os
import platform
import re
import resource
import shutil
import signal
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

ROOT = Path(__file__).resolve().parents[1]
MIB = 1024 * 1024
_CONGESTION = Path("/proc/sys/net/ipv4/tcp_congestion_control")
_CLONE_NEWNET = 0x40000000
_SIOCSIFFLAGS = 0x8914
_IFF_UP_RUNNING = 0x41
_SPREAD_WORTH_TELLING = 0.01


@dataclass
class Row:
    measure: str
    unit: str
    decimals: int
    goal: str
    runs: dict[str, list[float]] = field(default_factory=dict)


class Report:
    """Rows of measures, columns of peers, several runs of each."""

    def __init__(self, peers: list[str]) -> None:
        self._peers = peers
        self._rows: list[Row] = []
        self._notes: dict[str, str] = {}

    def add(
        self, measure: str, unit: str, peer: str, value: float, decimals: int = 0, goal: str = ""
    ) -> None:
        """One run's figure. Rows stand in the order of their first figure."""
        for row in self._rows:
            if (row.measure, row.unit) == (measure, unit):
                break
        else:
            row = Row(measure, unit, decimals, goal)
            self._rows.append(row)
        row.runs.setdefault(peer, []).append(value)

    def note(self, name: str, value: str) -> None:
        self._notes[name] = value

    def note_machine(self, directory: Path) -> None:
        model = re.search(r"^model name\s*: (.*)", Path("/proc/cpuinfo").read_text(), re.M)
        self.note("cores", str(os.cpu_count()))
        self.note("cpu", model[1] if model else "unknown")
        disk = subprocess.run(
            ["df", "--output=source,fstype", directory], capture_output=True, text=True, check=True
        )
        self.note("disk", " ".join(disk.stdout.splitlines()[-1].split()))
        self.note("kernel", f"{platform.system()} {platform.release()}")

    def table(self) -> str:
        """Markdown: medians, and how far the runs lie apart where that is more than a percent."""
        lines = [["measure", "unit", *self._peers]]
        for row in self._rows:
            cells = [_cell(row.runs.get(peer), row.decimals) for peer in self._peers]
            lines.append([row.measure, row.unit, *cells])
        return markdown(lines)

    def print(self, file: str) -> None:
        """The table on standard output, and all of it into this file, if it has a name."""
        print(self.table())
        if not file:
            return
        rows = [
            {
                "measure": row.measure,
                "unit": row.unit,
                "goal": row.goal,
                "peers": {
                    peer: {
                        "median": statistics.median(runs),
                        "low": min(runs),
                        "high": max(runs),
                        "runs": runs,
                    }
                    for peer, runs in row.runs.items()
                },
            }
            for row in self._rows
        ]
        Path(file).write_text(json.dumps({"notes": self._notes, "rows": rows}) + "\n")


def _cell(runs: list[float] | None, decimals: int) -> str:
    if not runs:
        return ""
    median = statistics.median(runs)
    spread = (max(runs) - min(runs)) / 2 / median if median else 0
    text = f"{median:,.{decimals}f}"
    return text + (f" ±{100 * spread:.0f}%" if spread >= _SPREAD_WORTH_TELLING else "")


def markdown(lines: list[list[str]], left: int = 2) -> str:
    """The first line is the head; the first `left` columns are words."""
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    text = []
    for number, line in enumerate(lines):
        cells = [
            word.ljust(width) if i < left else word.rjust(width)
            for i, (word, width) in enumerate(zip(line, widths, strict=True))
        ]
        text.append("| " + " | ".join(cells) + " |")
        if number == 0:
            rule = ["-" * (w + 1) + ("-" if i < left else ":") for i, w in enumerate(widths)]
            text.append("|" + "|".join(rule) + "|")
    return "\n".join(text)


@dataclass(frozen=True)
class Took:
    seconds: float
    cpu_seconds: float  # of the command and what it waited for


class Watch:
    """What passes between its making and took(); of children, those that have ended."""

    def __init__(self) -> None:
        self._cpu = _children_cpu()
        self._began = time.monotonic()

    def took(self) -> Took:
        return Took(time.monotonic() - self._began, _children_cpu() - self._cpu)


def _children_cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def cpu_seconds(pid: int) -> float:
    """Of a running process alone; the kernel tells it in steps of 10 ms."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def settle(directory: Path) -> None:
    """What was just written must not be on its way to the disk while something is measured."""
    subprocess.run(["sync", "-f", directory], check=True)


def own_loopback(congestion: str) -> str:
    """Moves this process into a network of its own, as bench/network.h; tells how it ended up.
    Call it before anything is started."""
    libc = ctypes.CDLL(None, use_errno=True)
    if congestion == "host" or libc.unshare(_CLONE_NEWNET) != 0:
        return _CONGESTION.read_text().strip() + ", the machine's loopback"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sh22x", b"lo", _IFF_UP_RUNNING))
    _CONGESTION.write_text(congestion)
    return _CONGESTION.read_text().strip() + ", a loopback of its own"


def arguments(doc: str | None, runs: int) -> argparse.ArgumentParser:
    """With what all of them take. A script that is told to end removes what it has made."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    parser = argparse.ArgumentParser(description=(doc or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="once and small: only that it works")
    parser.add_argument("--runs", type=int, default=runs)
    parser.add_argument("--json", default="", help="write every figure to this file")
    parser.add_argument(
        "--directory", type=Path, default=ROOT / "build", help="where some GiB may be written"
    )
    parser.add_argument(
        "--congestion", default="reno", help="TCP's congestion control; host: as the machine has it"
    )
    return parser


class Bench(Protocol):
    def run(self) -> None: ...
    def stop(self) -> None: ...


def measure(
    doc: str | None,
    runs: int,
    columns: list[str],
    make: Callable[[argparse.Namespace, Path, Report], Bench],
) -> None:
    """A whole program: `make` has a directory of its own, and `runs` is what is usual."""
    options = arguments(doc, runs).parse_args()
    if options.quick:
        options.runs = 1
    report = Report(columns)
    report.note_machine(options.directory)
    report.note("network", own_loopback(options.congestion))
    report.note("runs", str(options.runs))
    scratch = Path(tempfile.mkdtemp(prefix="staithe-", dir=options.directory))
    bench = None
    try:
        bench = make(options, scratch, report)
        bench.run()
        report.print(options.json)
    finally:
        if bench:
            bench.stop()
        shutil.rmtree(scratch, ignore_errors=True)


def say(what: str) -> None:
    print(what, file=sys.stderr, flush=True)
