#!/usr/bin/python3
"""All benchmarks in order, and the table of what Staithe is to be as fast as.

    ./dev bench                        what there is
    ./dev bench all [--quick]          all of them; figures to build/bench/NAME.json, the table to
                                       build/bench/table.md, plots to build/bench/*.svg
    ./dev bench all --only hit,cold    some of them
    ./dev bench all --plots docs       the plots to where the documentation shows them
    ./dev bench all --from FOLDER      the table and the plots again, of figures that are there
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

from bars import write_bars
from measuring import ROOT, say
from summary import figures_of, summary_table

# Name, question, and how it is run among all others, so that they end within a quarter of an hour.
# One that is not built, as what it needs is not on this machine, is left out.
BENCHES: list[tuple[str, str, list[str]]] = [
    ("hit", "a hit, beside other caches and a bare server", ["--runs", "3", "--window", "1500"]),
    ("cold", "a miss, beside other caches and the origin itself", ["--runs", "3"]),
    ("clients", "skopeo and ctr, cold and warm, beside docker-registry", ["--runs", "3"]),
    ("tls", "TLS to the upstream, beside curl and openssl", ["--runs", "3"]),
    ("tls_listener", "TLS on the listener, beside the same without and beside nginx", []),
    ("footprint", "size, memory, threads and descriptors", []),
    ("start", "a start with 100,000 blobs", []),
    ("growth", "the cost of each operation as the cache grows", []),
    ("disturbance", "hits beside eviction and scrub", []),
    ("slow_clients", "10,000 slow connections of one user, beside the hits of another", []),
    ("micro", "parsing, hashing, the index and eviction's decision, by themselves", []),
    ("segments", "several connections for one blob", ["--runs", "1", "--size", "256"]),
    ("eviction", "which policy keeps what will be used again", []),
    ("fleet", "10,000 nodes that start at once on one registry's limits", []),
]
# What --quick alone leaves long.
QUICK = {"start": ["--blobs", "1000", "--runs", "1"]}


def available() -> list[tuple[str, str, list[str]]]:
    def exists(name: str) -> bool:
        return any((ROOT / f"bench/{name}.{kind}").exists() for kind in ("py", "cc"))

    return [bench for bench in BENCHES if exists(bench[0])]


def bench_program(name: str) -> Path | None:
    build = Path(os.environ.get("STAITHE_BIN_DIR", ROOT / "build/release"))
    program = build / f"bench/bench_{name}"
    return program if program.exists() else None


def command_of(name: str) -> list[str] | None:
    script = ROOT / f"bench/{name}.py"
    if script.exists():
        return ["/usr/bin/python3", str(script)]
    program = bench_program(name)
    return [str(program)] if program else None


def run_one(name: str, options: list[str], quick: bool, results: Path, plots: Path) -> bool:
    command = command_of(name)
    if not command:
        say(f"{name}: not built")
        return True
    known = subprocess.run([*command, "--help"], capture_output=True, text=True, check=False).stdout
    if quick:
        if "--quick" not in known:
            say(f"{name}: has no quick run")
            return True
        command += ["--quick", *QUICK.get(name, [])]
    else:
        command += options
        if "--svg" in known:
            command += ["--svg", str(plots / f"{name}.svg")]
    figures = results / f"{name}.json"
    figures.unlink(missing_ok=True)
    if "--json" in known:
        command += ["--json", str(figures)]
    say(f"--- {name}")
    began = time.monotonic()
    with open(results / f"{name}.txt", "w", encoding="utf-8") as out:
        done = subprocess.run(command, stdout=out, check=False)
    print(f"\n{name}\n\n{(results / f'{name}.txt').read_text(encoding='utf-8')}", flush=True)
    say(f"--- {name}: {time.monotonic() - began:.0f} s")
    if done.returncode != 0:
        say(f"--- {name} failed with {done.returncode}")
    return done.returncode == 0


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--list", action="store_true", help="what there is")
    parser.add_argument("--quick", action="store_true", help="once and small: only that all works")
    parser.add_argument("--only", default="", help="names with commas between")
    parser.add_argument("--results", type=Path, default=ROOT / "build/bench")
    parser.add_argument("--plots", type=Path, default=None, help="default: where the results are")
    parser.add_argument("--from", type=Path, default=None, dest="made", help="measure nothing")
    options = parser.parse_args()
    if options.list:
        print("./dev bench NAME [OPTIONS]; each has --help")
        for name, question, _ in [*available(), ("all", "all of these, and one table", [])]:
            print(f"  {name:12} {question}")
        return
    only = options.only.split(",") if options.only else [name for name, _, _ in available()]
    unknown = set(only) - {name for name, _, _ in available()}
    if unknown:
        raise SystemExit(f"there is no benchmark called {', '.join(sorted(unknown))}")
    results = options.made or options.results
    results.mkdir(parents=True, exist_ok=True)
    plots = options.plots or results
    right = True
    if not options.made:
        for name, _, more in available():
            if name in only:
                right = run_one(name, more, options.quick, results, plots) and right
    if not options.quick:
        figures = figures_of(results)
        table = summary_table(figures)
        (results / "table.md").write_text(table + "\n", encoding="utf-8")
        print(f"\nThe table\n\n{table}")
        write_bars(figures, plots)
    sys.exit(0 if right else 1)


if __name__ == "__main__":
    main()
