#!/usr/bin/python3
"""Runs fuzz targets, each from its corpus for a bounded time: `./dev fuzz` says how.

A target's seeds are in tests/fuzz/corpus/TARGET, its dictionary, if it has one, is
tests/fuzz/TARGET.dict. What is found on the way grows in build/corpus/TARGET; an input that breaks
a promise, and what was said of it, is kept in build/fuzz-findings/TARGET.
"""

import argparse
import concurrent.futures
import dataclasses
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
HERE = ROOT / "tests" / "fuzz"
PROGRAMS = ROOT / "build" / "fuzz" / "tests"
WORKING_CORPUS = ROOT / "build" / "corpus"
FINDINGS = ROOT / "build" / "fuzz-findings"

# One input may take no longer, and no target more memory.
INPUT_SECONDS = 20
MOST_MEMORY_MB = 2048
# So many inputs of a target are committed, none of them larger.
MOST_SEEDS = 80
MOST_SEED_BYTES = 2048


@dataclasses.dataclass
class Outcome:
    target: str
    seconds: float
    executions: int
    edges: int
    inputs: int
    finding: str  # the file, if there is one


def targets():
    return sorted(file.stem for file in HERE.glob("*.cc"))


def idea_of(target):
    """The first sentence of the comment above a target."""
    words = []
    for line in (HERE / f"{target}.cc").read_text().splitlines():
        if not line.startswith("// "):
            break
        words.append(line[3:])
    return re.split(r"(?<=[.:;]) |\.$", " ".join(words))[0].rstrip(".:;")


def program_of(target):
    program = PROGRAMS / f"fuzz_{target}"
    if not program.exists():
        sys.exit(f"{program} is not built: run ./dev fuzz, which does that")
    return program


def environment():
    result = dict(os.environ)
    result.setdefault("UBSAN_OPTIONS", "print_stacktrace=1")
    symbolizer = shutil.which("llvm-symbolizer-19")
    if symbolizer:
        result.setdefault("ASAN_SYMBOLIZER_PATH", symbolizer)
    return result


def corpora_of(target):
    working = WORKING_CORPUS / target
    working.mkdir(parents=True, exist_ok=True)
    seeds = HERE / "corpus" / target
    return [working] + ([seeds] if seeds.is_dir() else [])


def run(target, seconds):
    findings = FINDINGS / target
    findings.mkdir(parents=True, exist_ok=True)
    dictionary = HERE / f"{target}.dict"
    command = [
        program_of(target), f"-max_total_time={seconds}", f"-timeout={INPUT_SECONDS}",
        f"-rss_limit_mb={MOST_MEMORY_MB}", "-print_final_stats=1", "-verbosity=1",
        f"-artifact_prefix={findings}/",
        *([f"-dict={dictionary}"] if dictionary.exists() else []), *corpora_of(target)]
    before = {file.name for file in findings.iterdir()}
    begun = time.monotonic()
    # What is said may be much; only its end is of interest.
    with tempfile.TemporaryFile() as output:
        code = subprocess.run(command, stdout=output, stderr=subprocess.STDOUT, cwd=ROOT,
                              env=environment(), check=False).returncode
        output.seek(0)
        said = output.read().decode(errors="replace")
    executions = re.findall(r"stat::number_of_executed_units:\s+(\d+)", said)
    progress = re.findall(r"cov: (\d+) ft: \d+ corp: (\d+)/", said)
    finding = ""
    if code != 0:
        new = sorted(file.name for file in findings.iterdir() if file.name not in before)
        kept = [name for name in new if name != "log"]
        finding = str((findings / kept[0]).relative_to(ROOT)) if kept else "(no input was kept)"
        (findings / "log").write_text(said)
    return Outcome(target, time.monotonic() - begun, int(executions[-1]) if executions else 0,
                   int(progress[-1][0]) if progress else 0,
                   int(progress[-1][1]) if progress else 0, finding)


def tell_finding(outcome):
    log = FINDINGS / outcome.target / "log"
    said = log.read_text().splitlines()
    start = next((at for at, line in enumerate(said)
                  if "broken promise" in line or "ERROR" in line or "runtime error" in line), 0)
    print("\n".join(said[start:start + 40]))
    print(f"\n{outcome.target}: a finding. Its input: {outcome.finding}; all that was said: "
          f"{log.relative_to(ROOT)}\n"
          f"again: build/fuzz/tests/fuzz_{outcome.target} {outcome.finding}\n", flush=True)


def table(rows, heading, texts=1):
    """The first `texts` columns are words, the others figures."""
    widths = [max(len(str(row[column])) for row in [heading, *rows])
              for column in range(len(heading))]
    for row in [heading, *rows]:
        cells = [str(cell).ljust(widths[at]) if at < texts else str(cell).rjust(widths[at])
                 for at, cell in enumerate(row)]
        print("  ".join(cells).rstrip())


def run_all(names, seconds, jobs, as_json):
    outcomes = []
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        for outcome in pool.map(lambda name: run(name, seconds), names):
            outcomes.append(outcome)
            if outcome.finding:
                tell_finding(outcome)
    table([(o.target, f"{o.seconds:.0f}", f"{o.executions:,}",
            f"{o.executions / max(o.seconds, 1):,.0f}", f"{o.edges:,}", f"{o.inputs:,}",
            o.finding or "none") for o in outcomes],
          ("target", "seconds", "executions", "a second", "edges", "corpus", "finding"))
    if as_json:
        pathlib.Path(as_json).write_text(
            json.dumps([dataclasses.asdict(o) for o in outcomes], indent=1) + "\n")
    return 1 if any(o.finding for o in outcomes) else 0


def files_under_test(target):
    """What the target includes of the program, and the sources behind it."""
    pending = [HERE / f"{target}.cc"]
    found = set()
    while pending:
        text = pending.pop().read_text()
        for name in re.findall(r'#include "([^"]+)"', text):
            if name.startswith("tests/fuzz/"):
                pending.append(ROOT / name)
            elif name.startswith(("cache/", "proxy/", "daemon/")):
                found.update({name, name.removesuffix(".h") + ".cc"})
    return found


def coverage(target):
    """Edges of the files under test that the corpus reaches, and all: by file."""
    said = subprocess.run(
        [program_of(target), "-runs=0", "-print_coverage=1", *corpora_of(target)],
        capture_output=True, cwd=ROOT, env=environment(), check=False).stderr.decode(
            errors="replace")
    edges = {}
    for reached, total, file in re.findall(
            r"COVERED_FUNC: hits: \d+ edges: (\d+)/(\d+) .* (\S+?):\d+$", said, re.MULTILINE):
        name = file.removeprefix(f"{ROOT}/")
        before = edges.get(name, (0, 0))
        edges[name] = (before[0] + int(reached), before[1] + int(total))
    return {name: edges[name] for name in files_under_test(target) if name in edges}


def tell_coverage(names):
    rows = []
    for name in names:
        for file, (reached, total) in sorted(coverage(name).items()):
            if total > 0:
                rows.append((name, file, reached, total, f"{100 * reached / total:.0f} %"))
    table(rows, ("target", "file", "reached", "edges", "share"), texts=2)
    return 0


def keep_seeds(target):
    """Makes the committed corpus of what was found: the smallest inputs that reach the same."""
    seeds = HERE / "corpus" / target
    own = [file for file in seeds.iterdir() if not re.fullmatch("[0-9a-f]{40}", file.name)]
    with tempfile.TemporaryDirectory() as folder:
        merged = pathlib.Path(folder) / "merged"
        merged.mkdir()
        for file in own:
            shutil.copy(file, merged)
        subprocess.run([program_of(target), "-merge=1", f"-rss_limit_mb={MOST_MEMORY_MB}", merged,
                        *corpora_of(target)], capture_output=True, cwd=ROOT, env=environment(),
                       check=True)
        for file in seeds.iterdir():
            if file not in own:
                file.unlink()
        found = sorted((file for file in merged.iterdir() if not (seeds / file.name).exists()),
                       key=lambda file: file.stat().st_size)
        for file in found[:MOST_SEEDS]:
            if file.stat().st_size <= MOST_SEED_BYTES:
                shutil.copy(file, seeds)
    return sum(file.stat().st_size for file in seeds.iterdir())


def main():
    parser = argparse.ArgumentParser(prog="./dev fuzz", description=__doc__.split("\n\n")[0])
    parser.add_argument("target", nargs="*", help="one or some; none: the list of them")
    parser.add_argument("--all", action="store_true", help="every target")
    parser.add_argument("--seconds", type=int, metavar="N",
                        default=int(os.environ.get("STAITHE_FUZZ_SECONDS", "5")),
                        help="for each (default 5, or STAITHE_FUZZ_SECONDS)")
    parser.add_argument("--jobs", type=int, metavar="N", default=1, help="targets at a time")
    parser.add_argument("--json", metavar="FILE", help="the figures of the run as well")
    parser.add_argument("--coverage", action="store_true",
                        help="what of each file under test the corpus reaches, without a run")
    parser.add_argument("--keep-seeds", action="store_true",
                        help="make the committed corpus of what was found, without a run")
    asked = parser.parse_args()
    unknown = [name for name in asked.target if name not in targets()]
    if unknown:
        parser.error(f"there is no target '{unknown[0]}'; without an argument they are listed")
    names = targets() if asked.all else asked.target
    if not names:
        table([(name, idea_of(name)) for name in targets()], ("target", "what it reads"), texts=2)
        return 0
    if asked.coverage:
        return tell_coverage(names)
    if asked.keep_seeds:
        for name in names:
            print(f"{name}: {keep_seeds(name):,} bytes")
        return 0
    return run_all(names, asked.seconds, asked.jobs, asked.json)


if __name__ == "__main__":
    sys.exit(main())
