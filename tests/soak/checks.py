"""What a history must show, as pure functions of it: each gives the violations that it finds.

    for violation in judge(history): ...

The rules are those that the documentation promises (docs/freshness.md, docs/storage.md,
docs/upstreams.md, docs/security.md); an allowance stands at the top of this file, with its reason.
checks_test.py has, for each rule, a history that breaks it and one that just does not.
"""

from __future__ import annotations

import bisect
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from history import (
    Asked,
    Configured,
    Faulted,
    Fetched,
    History,
    Lived,
    Looked,
    Made,
    Moved,
    Ruled,
    Stayed,
)
from trend import trend

# The clocks are one, but the writing down of an instant comes a little after it.
SLACK = 0.3
# How soon after the last fault everything is as it was.
BACK_TO_NORMAL = 10.0
# The cache itself looks every 10 s whether its disk is good again, and it shrinks as often.
DISK_BACK_TO_NORMAL = 15.0
# A credential that is refused is not tried again for so long: a quarter more or less of 40 s
# and, after many refusals, of 2 min (proxy/auth/schedule.h), whatever is granted meanwhile.
GRANT_NOTICED = 155.0
# The age of a tag is counted in whole seconds.
TAG_AGE_RESOLUTION = 1.0
# A 404 is remembered for as long (docs/freshness.md).
ABSENCE = 3.0
# What was learnt in the last second before a kill is not in the index (docs/storage.md).
NOT_YET_WRITTEN = 2.0
# What is being evicted is a miss before its file is gone, and a busy disk takes its time with that.
BEING_REMOVED = 2.0
# After a start files and index are compared behind the serving.
RECONCILED = 5.0
# No client is ever answered 401 or 429; 500 is a fault of our own.
STATUSES = (200, 206, 304, 400, 403, 404, 405, 416, 502, 503)

# By the trend over the last two thirds of a run, if these are long enough to show one.
MOST_GROWTH = {"rss_kib": 8 * 1024, "descriptors": 8, "threads": 1}
LEAST_STEADY = 600.0
# cache/store.cc
MOST_KEPT_OPEN = 256


@dataclass(frozen=True)
class Violation:
    rule: str
    at: float
    sentence: str

    def __str__(self) -> str:
        return f"{self.rule}: {self.sentence}"


class Facts:
    """What of a history the rules ask for again and again, in the form in which they ask."""

    def __init__(self, history: History) -> None:
        self.history = history
        self.asked: list[Asked] = history.of(Asked)
        self.faults: list[Faulted] = sorted(history.of(Faulted), key=lambda f: f.begin)
        self._longest_fault = max((f.end - f.begin for f in self.faults), default=0.0)
        self.lives: list[Lived] = history.of(Lived)
        self.kills = [life.at for life in self.lives if life.what == "killed"]
        self.starts = [life.at for life in self.lives if life.what == "ready"]
        self.sizes: dict[str, int] = {}
        self.made: dict[tuple[str, str], float] = {}  # repository, digest -> since when
        for made in history.of(Made):
            self.sizes[made.manifest] = made.manifest_bytes
            self.sizes |= made.blobs
            for digest in (made.manifest, *made.blobs):
                self.made.setdefault((made.repository, digest), made.at)
        self._quiet = self._times_without_fault()
        self._tags: dict[tuple[str, str], list[Moved]] = defaultdict(list)
        for moved in sorted(history.of(Moved), key=lambda m: m.at):
            self._tags[moved.repository, moved.tag].append(moved)
        self._rules: dict[str, list[Ruled]] = defaultdict(list)
        for ruled in sorted(history.of(Ruled), key=lambda r: r.at):
            self._rules[ruled.repository].append(ruled)
        self._configured: list[Configured] = sorted(history.of(Configured), key=lambda c: c.at)
        self.fetched: list[Fetched] = sorted(history.of(Fetched), key=lambda f: f.begin)
        self._answers: dict[tuple[str, str], list[Fetched]] = defaultdict(list)
        for fetched in self.fetched:
            if fetched.reference and fetched.status in (200, 206, 307):
                self._answers[fetched.repository, fetched.reference].append(fetched)

    # ---- tags ----------------------------------------------------------------------------------

    def moves(self, repository: str, tag: str) -> list[Moved]:
        return self._tags.get((repository, tag), [])

    def named(self, repository: str, tag: str, begin: float, end: float) -> list[str]:
        """What the tag named at some moment from `begin` to `end`, oldest first; "" for nothing."""
        moves = self.moves(repository, tag)
        found = [] if moves and moves[0].at <= begin else [""]
        for number, moved in enumerate(moves):
            until = moves[number + 1].at if number + 1 < len(moves) else float("inf")
            if moved.at <= end and until >= begin:
                found.append(moved.digest)
        return found

    def version(self, repository: str, tag: str, digest: str, end: float) -> int | None:
        """The number of the last move before `end` by which the tag named the digest."""
        moves = self.moves(repository, tag)
        numbers = [n for n, moved in enumerate(moves) if moved.digest == digest and moved.at <= end]
        return numbers[-1] if numbers else None

    def answers(self, repository: str, reference: str, begin: float, end: float) -> list[Fetched]:
        """What upstream answered with content, at least partly within this time."""
        found = self._answers.get((repository, reference), [])
        # Nothing that upstream answers takes longer than this.
        first = bisect.bisect_left(found, begin - 60, key=lambda f: f.begin)
        last = bisect.bisect_right(found, end, key=lambda f: f.begin)
        return [f for f in found[first:last] if f.end >= begin]

    # ---- rights --------------------------------------------------------------------------------

    def allowed(self, repository: str, begin: float, end: float) -> list[bool]:
        """Each that was so at some moment from `begin` to `end`; True for what nobody ruled."""
        rules = self._rules.get(repository, [])
        found = [] if rules and rules[0].at <= begin else [True]
        for number, ruled in enumerate(rules):
            until = rules[number + 1].at if number + 1 < len(rules) else float("inf")
            if ruled.at <= end and until >= begin:
                found.append(ruled.allowed)
        return found

    # ---- configuration -------------------------------------------------------------------------

    def configured(self, at: float) -> Configured:
        number = bisect.bisect_right(self._configured, at, key=lambda c: c.at)
        return self._configured[max(0, number - 1)]

    def most_bytes(self, begin: float, end: float) -> int:
        within = [c.max_size for c in self._configured if begin <= c.at <= end]
        return max([self.configured(begin).max_size, *within])

    def tag_ttl(self, repository: str, begin: float, end: float) -> float:
        within = [c for c in self._configured if begin <= c.at <= end]
        return max(c.tag_ttl.get(repository, 0.0) for c in [self.configured(begin), *within])

    # ---- faults --------------------------------------------------------------------------------

    def faulty(self, begin: float, end: float, *kinds: str) -> bool:
        """Whether a fault (of these kinds) was there at some moment from `begin` to `end`."""
        first = bisect.bisect_left(self.faults, begin - self._longest_fault, key=lambda f: f.begin)
        last = bisect.bisect_right(self.faults, end, key=lambda f: f.begin)
        return any(
            fault.end >= begin and (not kinds or fault.kind in kinds)
            for fault in self.faults[first:last]
        )

    def since_quiet(self, begin: float, end: float) -> float:
        """For how long there had been no fault at `begin`, if there was none until `end`; else
        less than 0."""
        number = bisect.bisect_right(self._quiet, (begin, float("inf"))) - 1
        if number < 0 or self._quiet[number][1] < end:
            return -1.0
        return begin - self._quiet[number][0]

    def _times_without_fault(self) -> list[tuple[float, float]]:
        """Each from the end of the last fault on."""
        found: list[tuple[float, float]] = []
        at = min(self.starts, default=0.0)
        for fault in self.faults:
            if fault.begin > at:
                found.append((at, fault.begin))
            at = max(at, fault.end)
        found.append((at, float("inf")))
        return found

    def may_be_forgotten(self, seen: Asked) -> bool:
        """What the daemon knew then may be lost: a kill came before it could be written, or it
        could not be written at all."""
        killed = any(seen.begin <= kill <= seen.end + NOT_YET_WRITTEN for kill in self.kills)
        return killed or self.faulty(seen.begin, seen.end + NOT_YET_WRITTEN, "disk")


def told(asked: Asked) -> str:
    return (
        f"{asked.client}: {asked.method} {asked.kind} {asked.repository} {asked.reference[:23]} "
        f"{asked.range or ''} -> {asked.outcome} {asked.status} {asked.cache_status} "
        f"({asked.received} of {asked.length} bytes, {asked.end - asked.begin:.3f} s) {asked.note}"
    )


# ---- the rules ----------------------------------------------------------------------------------


def check_bytes(facts: Facts) -> Iterator[Violation]:
    """A whole answer has the bytes of its digest, all of them, and says the truth about them."""
    for asked in facts.asked:
        if asked.outcome != "whole" or not asked.served_content:
            continue
        if asked.kind not in ("manifest", "blob"):
            continue
        digest = asked.reference if not asked.is_tag else asked.served
        if not digest or digest not in facts.sizes:
            yield Violation("bytes", asked.end, f"nobody has made this: {told(asked)}")
            continue
        if asked.served and asked.served != digest:
            yield Violation("bytes", asked.end, f"served {asked.served}: {told(asked)}")
        if asked.status == 200 and asked.length not in (-1, facts.sizes[digest]):
            yield Violation("bytes", asked.end, f"not {facts.sizes[digest]} long: {told(asked)}")
        if asked.method == "GET" and asked.right is False:
            # A part of a blob that is still on its way goes on as it comes, since only the whole
            # has a digest; an upstream that lies at that moment is found out at the end.
            partly = asked.status == 206 and asked.cache_status != "staithe; hit"
            if partly and facts.faulty(asked.begin - 60, asked.end, "lie"):
                continue
            yield Violation("bytes", asked.end, f"wrong bytes, whole: {told(asked)}")


def check_time(facts: Facts) -> Iterator[Violation]:
    """Every request ends, within its deadline."""
    for asked in facts.asked:
        took = asked.end - asked.begin
        if asked.outcome == "timeout" or 0 < asked.patience < took:
            yield Violation("time", asked.begin, f"longer than {asked.patience} s: {told(asked)}")


def check_statuses(facts: Facts) -> Iterator[Violation]:
    """What is wrong is refused; and nobody is told what is not his business."""
    for asked in facts.asked:
        if asked.kind == "odd":
            if asked.status and not 400 <= asked.status < 600:
                yield Violation("odd", asked.begin, f"this was accepted: {told(asked)}")
            if asked.outcome not in ("whole", "cut", "refused"):
                yield Violation("odd", asked.begin, f"this did not end: {told(asked)}")
        elif asked.kind != "control" and asked.status and asked.status not in STATUSES:
            yield Violation("status", asked.begin, told(asked))


def check_tags(facts: Facts) -> Iterator[Violation]:
    """A tag's answer is what upstream said within tag_ttl, or an older one that is marked stale;
    and nobody is told that a tag is gone which is there."""
    for asked in facts.asked:
        if not asked.is_tag or asked.outcome not in ("whole", "left"):
            continue
        repository, tag = asked.repository, asked.reference
        trusted = facts.tag_ttl(repository, asked.begin - 60, asked.end)
        # With no time of trust nothing is counted.
        known_since = asked.begin - SLACK - (trusted + TAG_AGE_RESOLUTION if trusted else 0.0)
        answers = facts.answers(repository, tag, known_since, asked.end)
        since = min([known_since, *(answer.begin for answer in answers)])
        if asked.served_content:
            if asked.stale:
                since = 0.0
            named = facts.named(repository, tag, since, asked.end + SLACK)
            if asked.served not in named:
                yield Violation(
                    "tags", asked.end,
                    f"{tag} named {[d[:19] for d in named]}, not {asked.served[:19]}: "
                    f"{told(asked)}",
                )  # fmt: skip
        elif asked.status == 404 and facts.moves(repository, tag):
            since -= ABSENCE
            if "" not in facts.named(repository, tag, since, asked.end + SLACK):
                yield Violation("tags", asked.end, f"{tag} is there: {told(asked)}")


def check_tags_go_on(facts: Facts) -> Iterator[Violation]:
    """What a tag was answered with, no later request gets an older answer than."""
    by_tag: dict[tuple[str, str], list[Asked]] = defaultdict(list)
    for asked in facts.asked:
        if asked.is_tag and asked.served_content and asked.served:
            by_tag[asked.repository, asked.reference].append(asked)
    for (repository, tag), all_asked in by_tag.items():
        ended = sorted(all_asked, key=lambda a: a.end)
        newest: tuple[int, Asked] | None = None
        number = 0
        for later in sorted(all_asked, key=lambda a: a.begin):
            while number < len(ended) and ended[number].end < later.begin:
                earlier = ended[number]
                number += 1
                version = facts.version(repository, tag, earlier.served, earlier.end + SLACK)
                if version is None or facts.may_be_forgotten(earlier):
                    continue
                if newest is None or version > newest[0]:
                    newest = version, earlier
            version = facts.version(repository, tag, later.served, later.end + SLACK)
            if newest and version is not None and version < newest[0]:
                yield Violation(
                    "tags go on", later.end,
                    f"older by {newest[0] - version} than {told(newest[1])}: {told(later)}",
                )  # fmt: skip


def check_rights(facts: Facts) -> Iterator[Violation]:
    """A right that was taken away is gone: at once where the daemon has been told so, and for tags
    and lists once the last token has ended."""
    refused: dict[tuple[str, str], Asked] = {}
    for asked in sorted(facts.asked, key=lambda a: a.begin):
        if not (asked.is_tag or asked.kind == "tags"):
            continue
        key = asked.repository, asked.reference
        if asked.served_content and asked.outcome in ("whole", "left"):
            earlier = refused.get(key)
            if earlier and earlier.end < asked.begin:
                since = earlier.begin
                if True not in facts.allowed(asked.repository, since, asked.end):
                    yield Violation(
                        "rights", asked.end, f"refused before, by {told(earlier)}: {told(asked)}"
                    )
            config = facts.configured(asked.begin)
            bound = config.token_life + config.tag_ttl.get(asked.repository, 0.0) + 5.0
            if True not in facts.allowed(asked.repository, asked.begin - bound, asked.end):
                # While nobody can say that the right is gone, what was confirmed stands, marked.
                excused = asked.stale and facts.faulty(asked.begin - BACK_TO_NORMAL, asked.end)
                if not excused:
                    yield Violation("rights", asked.end, f"gone for {bound} s: {told(asked)}")
        elif asked.status == 403 and not facts.may_be_forgotten(asked):
            refused[key] = asked


def check_shown(facts: Facts) -> Iterator[Violation]:
    """A digest is served only in a repository in which upstream has shown it to this machine."""
    first_shown: dict[tuple[str, str], float] = {}
    for fetched in facts.fetched:
        if fetched.status not in (200, 206, 307):
            continue
        digests = {fetched.digest, fetched.reference}
        if fetched.reference and ":" not in fetched.reference:
            end = fetched.end + SLACK
            digests |= set(
                facts.named(fetched.repository, fetched.reference, fetched.begin - SLACK, end)
            )
        for digest in digests:
            key = fetched.repository, digest
            first_shown[key] = min(fetched.begin, first_shown.get(key, float("inf")))
    for asked in facts.asked:
        if not asked.served_content or asked.kind not in ("manifest", "blob"):
            continue
        digest = asked.served or asked.reference
        if first_shown.get((asked.repository, digest), float("inf")) > asked.end + SLACK:
            yield Violation("shown", asked.end, f"upstream never showed it there: {told(asked)}")


def check_fetches(facts: Facts) -> Iterator[Violation]:
    """One fetch for a miss: no two transfers from the same byte on at one time, and none of what
    is stored."""
    passing: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for asked in facts.asked:
        # Past a cache that cannot take it, each has a transfer of his own.
        if asked.kind == "blob" and "fwd=bypass" in asked.cache_status and asked.method == "GET":
            passing[asked.reference].append((asked.begin, asked.end))
    transfers: dict[str, list[Fetched]] = defaultdict(list)
    for fetched in facts.fetched:
        if fetched.digest and fetched.method == "GET" and fetched.status in (200, 206):
            transfers[fetched.digest].append(fetched)

    def excused(fetched: Fetched) -> bool:
        begin, end = fetched.begin - SLACK, fetched.end + SLACK
        passed = passing.get(fetched.digest, [])
        if fetched.fault or any(b <= end and e >= begin for b, e in passed):
            return True
        # Whose file fails under him, each goes on from upstream by himself.
        return facts.faulty(fetched.begin - 5, fetched.end, "disk")

    for found in transfers.values():
        for number, one in enumerate(found):
            for other in found[number + 1 :]:
                if other.begin >= one.end:
                    continue
                begin = max(one.first, other.first)
                end = min(one.first + one.sent, other.first + other.sent)
                if begin >= end or one.broken or other.broken:
                    continue
                # A part that is split is cut where the next begins; what was on its way by then is
                # sent, and not read. Who fetches once more begins where the first did.
                if one.first != other.first:
                    continue
                if not excused(one) and not excused(other):
                    yield Violation(
                        "fetches", other.begin,
                        f"{end - begin} bytes of {one.digest[:19]} come twice at once: "
                        f"{one} and {other}",
                    )  # fmt: skip
    for stayed in facts.history.of(Stayed):
        for fetched in transfers.get(stayed.digest, []):
            surely = stayed.begin + SLACK < fetched.begin < stayed.end - BEING_REMOVED
            if not surely or not fetched.sent:
                continue
            near_start = any(s <= fetched.begin <= s + RECONCILED for s in facts.starts)
            if not near_start and not excused(fetched):
                yield Violation(
                    "fetches", fetched.begin, f"{stayed.digest[:19]} is stored, and: {fetched}"
                )


def check_budget(facts: Facts) -> Iterator[Violation]:
    """The cache directory takes no more than max_size."""
    for looked in facts.history.of(Looked):
        bound = facts.most_bytes(looked.at - DISK_BACK_TO_NORMAL, looked.at)
        if looked.disk_bytes > bound:
            yield Violation("budget", looked.at, f"{looked.disk_bytes} bytes, of {bound}")


def check_normal(facts: Facts) -> Iterator[Violation]:
    """Some seconds after the last fault, everything that is there is served, fresh and whole."""
    for asked in facts.asked:
        if asked.kind not in ("manifest", "blob", "tags", "ping") or asked.note:
            continue
        if facts.since_quiet(asked.begin, asked.end) < BACK_TO_NORMAL:
            continue
        if asked.outcome == "left" and asked.status in (0, 200, 206) and not asked.stale:
            continue
        if not _is_there(facts, asked):
            continue
        if asked.outcome not in ("whole", "left") or asked.stale or not asked.served_content:
            yield Violation("normal", asked.begin, told(asked))
    before: set[str] = set()
    for looked in facts.history.of(Looked):
        # One request that a busy machine was too slow for is over at the next look.
        away = {n for n, s in looked.registries.items() if s in ("unreachable", "throttled")}
        still, before = away & before, away
        if facts.since_quiet(looked.at, looked.at) < DISK_BACK_TO_NORMAL:
            continue
        if looked.mode != "read-write":
            yield Violation("normal", looked.at, f"the cache is {looked.mode or 'silent'}")
        if still:
            yield Violation("normal", looked.at, f"still away: {', '.join(sorted(still))}")


def _is_there(facts: Facts, asked: Asked) -> bool:
    """It was there, and we were allowed to have it, all the time, and so have to get it."""
    if asked.kind == "ping":
        return True
    if False in facts.allowed(asked.repository, asked.begin - GRANT_NOTICED, asked.end):
        return False
    since = asked.begin - ABSENCE - SLACK
    if asked.kind == "tags":
        return True
    if asked.is_tag:
        return "" not in facts.named(asked.repository, asked.reference, since, asked.end)
    return facts.made.get((asked.repository, asked.reference), float("inf")) < since


def check_life(facts: Facts) -> Iterator[Violation]:
    """It ends when it is told to, and never by itself."""
    for life in facts.lives:
        if life.what == "died":
            yield Violation("life", life.at, f"it ended by itself: {life.note}")
        if life.what == "stopped" and life.note != "0":
            yield Violation("life", life.at, f"told to stop, it ended with {life.note}")


def check_growth(facts: Facts) -> Iterator[Violation]:
    """Memory, descriptors and threads of a daemon that has warmed up stay what they are."""
    looks = steady(facts.history.of(Looked))
    if not looks or looks[-1].at - looks[0].at < LEAST_STEADY:
        return
    for name, most in MOST_GROWTH.items():
        found = trend([(look.at, weight(look, name)) for look in looks])
        if found and found.growth > most:
            yield Violation(
                "growth", looks[-1].at,
                f"{name} grew by {found.growth:.0f}, from {found.least:.0f} to {found.most:.0f}",
            )  # fmt: skip


def weight(look: Looked, name: str) -> float:
    """What may show no trend. A stored blob that was used may be kept open, and how many there are
    comes and goes with their sizes."""
    found = float(getattr(look, name))
    return found - min(look.blobs, MOST_KEPT_OPEN) if name == "descriptors" else found


def steady(looks: list[Looked]) -> list[Looked]:
    """The last two thirds of the run, as far as it is one process."""
    if not looks:
        return []
    begin = looks[0].at + (looks[-1].at - looks[0].at) / 3
    return [look for look in looks if look.at >= begin and look.pid == looks[-1].pid]


RULES: tuple[Callable[[Facts], Iterator[Violation]], ...] = (
    check_bytes,
    check_time,
    check_statuses,
    check_tags,
    check_tags_go_on,
    check_rights,
    check_shown,
    check_fetches,
    check_budget,
    check_normal,
    check_life,
    check_growth,
)


def weighed(facts: Facts) -> dict[str, int]:
    """How much there was for the rules to find something in."""
    content = [a for a in facts.asked if a.kind in ("manifest", "blob") and a.served_content]
    return {
        "bodies compared with their digest": sum(1 for a in facts.asked if a.right is not None),
        "answers for a tag": sum(1 for a in content if a.is_tag),
        "of them marked stale": sum(1 for a in content if a.is_tag and a.stale),
        "questions for what is not ours": sum(
            1 for a in facts.asked if False in facts.allowed(a.repository, a.begin, a.end)
        ),
        "requests that had to be served, 10 s after the last fault": sum(
            1
            for a in content
            if facts.since_quiet(a.begin, a.end) >= BACK_TO_NORMAL and _is_there(facts, a)
        ),
        "files that stayed": len(facts.history.of(Stayed)),
    }


def judge(history: History) -> list[Violation]:
    facts = Facts(history)
    return sorted((v for rule in RULES for v in rule(facts)), key=lambda v: v.at)
