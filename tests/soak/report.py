"""A soak in figures: what was asked, what went wrong, what it took."""

from __future__ import annotations

import statistics
from collections import Counter
from typing import Any

from checks import MOST_GROWTH, Facts, Violation, steady, weighed, weight
from history import Asked, Faulted, Fetched, History, Lived, Looked
from trend import trend


def figures(history: History, violations: list[Violation]) -> dict[str, Any]:
    asked: list[Asked] = history.of(Asked)
    looks: list[Looked] = history.of(Looked)
    fetched: list[Fetched] = history.of(Fetched)
    lives: list[Lived] = history.of(Lived)
    faults: list[Faulted] = history.of(Faulted)
    facts = Facts(history)
    transfers = [f for f in fetched if f.digest and f.method == "GET" and f.status in (200, 206)]
    begin = min((a.begin for a in asked), default=0.0)
    end = max((a.end for a in asked), default=0.0)
    content = [a for a in asked if a.kind in ("manifest", "blob")]
    whole = sorted(a.end - a.begin for a in content if a.outcome == "whole" and a.served_content)
    found: dict[str, Any] = {
        "seconds": round(end - begin, 1),
        "requests": len(asked),
        "by_kind": dict(Counter(a.kind for a in asked)),
        "by_outcome": dict(Counter(a.outcome for a in asked)),
        "by_status": {str(k): v for k, v in sorted(Counter(a.status for a in asked).items())},
        "by_cache_status": dict(Counter(a.cache_status for a in content if a.served_content)),
        "bytes_to_clients": sum(a.received for a in asked),
        "faults": len(faults),
        "by_fault": dict(Counter(f.name for f in faults).most_common()),
        "kills": sum(1 for life in lives if life.what == "killed"),
        "restarts": sum(1 for life in lives if life.what == "stopped"),
        "upstream_requests": len(fetched),
        "blob_misses": sum(1 for a in content if a.kind == "blob" and "stored" in a.cache_status),
        "blob_joins": sum(1 for a in content if a.kind == "blob" and "collapsed" in a.cache_status),
        "blob_transfers": len(transfers),
        "blob_bytes_from_upstream": sum(f.sent for f in transfers),
        "evicted": _over_lives(looks),
        "most_disk_bytes": max((look.disk_bytes for look in looks), default=0),
        "max_size": facts.most_bytes(begin, end) if looks else 0,
        "looks": len(looks),
        "whole_answers_p50_ms": _at(whole, 0.50),
        "whole_answers_p99_ms": _at(whole, 0.99),
        "weighed": weighed(facts),
        "trends": {},
        "violations": len(violations),
        "by_rule": dict(Counter(v.rule for v in violations)),
        "first_violations": [str(v) for v in violations[:20]],
    }
    last = steady(looks)
    for name in MOST_GROWTH:
        line = trend([(look.at, weight(look, name)) for look in last])
        if line:
            found["trends"][name] = {
                "minutes": round((last[-1].at - last[0].at) / 60, 1),
                "least": line.least,
                "median": line.median,
                "most": line.most,
                "per_hour": round(line.per_hour, 1),
            }
    return found


def _over_lives(looks: list[Looked]) -> int:
    """A counter that begins anew with each process."""
    most: dict[int, int] = {}
    for look in looks:
        most[look.pid] = max(most.get(look.pid, 0), look.evicted)
    return sum(most.values())


def _at(values: list[float], share: float) -> float:
    """In milliseconds; of sorted seconds."""
    if not values:
        return 0.0
    if share == 0.5:
        return round(statistics.median(values) * 1000, 2)
    return round(values[min(len(values) - 1, int(len(values) * share))] * 1000, 2)


def print_table(found: dict[str, Any]) -> None:
    rows: list[tuple[str, object]] = [
        ("time", f"{found['seconds'] / 60:.1f} min"),
        ("requests of clients", found["requests"]),
        ("  by kind", _listed(found["by_kind"])),
        ("  by end", _listed(found["by_outcome"])),
        ("  by status", _listed(found["by_status"])),
        ("content served", _listed(found["by_cache_status"])),
        ("bytes to clients", f"{found['bytes_to_clients'] / 2**20:.0f} MiB"),
        ("whole answers with content", f"p50 {found['whole_answers_p50_ms']} ms, "
                                       f"p99 {found['whole_answers_p99_ms']} ms, faults included"),
        ("faults", f"{found['faults']} of {len(found['by_fault'])} kinds"),
        ("kill -9, restarts", f"{found['kills']}, {found['restarts']}"),
        ("requests upstream", found["upstream_requests"]),
        ("misses of blobs, joined others", f"{found['blob_misses']}, {found['blob_joins']}"),
        ("transfers of blobs", f"{found['blob_transfers']}, "
                               f"{found['blob_bytes_from_upstream'] / 2**20:.0f} MiB"),
        ("evicted", found["evicted"]),
        ("cache directory, at most", f"{found['most_disk_bytes']} bytes of {found['max_size']} "
                                     f"({found['looks']} looks)"),
    ]  # fmt: skip
    rows += list(found["weighed"].items())
    for name, line in found["trends"].items():
        rows.append(
            (f"{name}, last {line['minutes']} min",
             f"{line['least']:.0f} to {line['most']:.0f}, median {line['median']:.0f}, "
             f"trend {line['per_hour']:+.1f} an hour")
        )  # fmt: skip
    rows.append(("violations", f"{found['violations']} {_listed(found['by_rule'])}"))
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        print(f"{name:{width}}  {value}")


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{name or '-'} {count}" for name, count in counts.items())
