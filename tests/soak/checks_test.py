#!/usr/bin/python3
"""The judge of a soak is judged: each kind of violation is found, and what just is none is not."""

from __future__ import annotations

import sys
import tempfile
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from checks import judge
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

ONE, TWO = "sha256:" + "1" * 64, "sha256:" + "2" * 64
BLOB = "sha256:" + "b" * 64
BEGIN = 1000.0
MIB = 1 << 20


class Judged(unittest.TestCase):
    """A history in which all is well, to which a test adds what is not.

    The tag `v` names ONE from the begin on and TWO from BEGIN + 100; there is no fault.
    """

    def setUp(self) -> None:
        self.history = History()
        self.add(Configured(BEGIN, 10 * MIB, {"app": 2.0}, 40.0))
        self.add(Lived("ready", BEGIN, 1))
        for manifest in (ONE, TWO):
            self.add(Made("app", manifest, 500, {BLOB: 1000}, BEGIN))
        self.add(Moved("app", "v", ONE, BEGIN))
        self.add(Moved("app", "v", TWO, BEGIN + 100))
        self.add(self.fetched(0.5, "v", method="HEAD"))
        self.add(self.fetched(0.6, ONE))
        self.add(self.fetched(0.7, BLOB, digest=BLOB, method="HEAD"))

    def add(self, *things: object) -> None:
        for thing in things:
            self.history.add(thing)  # type: ignore[arg-type]

    def fetched(self, after: float, reference: str, **fields: object) -> Fetched:
        base = {
            "role": "acr", "method": "GET", "repository": "app", "reference": reference,
            "digest": "", "begin": BEGIN + after, "end": BEGIN + after + 0.1, "status": 200,
            "first": 0, "last": -1, "sent": 0, "broken": False, "fault": "",
        }  # fmt: skip
        return Fetched(**{**base, **fields})  # type: ignore[arg-type]

    def transfer(self, after: float, seconds: float = 1.0, **fields: object) -> Fetched:
        """Of all of the blob, from storage."""
        base = {"digest": BLOB, "sent": 1000, "end": BEGIN + after + seconds, "role": "storage"}
        return self.fetched(after, "", **{**base, "repository": "", **fields})

    def tag(self, after: float, served: str, **fields: object) -> Asked:
        return self.asked(after, "manifest", "v", served=served, length=500, **fields)

    def blob(self, after: float, **fields: object) -> Asked:
        base = {"served": BLOB, "length": 1000, "received": 1000, "right": True}
        return self.asked(after, "blob", BLOB, **{**base, **fields})

    def asked(self, after: float, kind: str, reference: str, **fields: object) -> Asked:
        base = {
            "client": "c", "method": "GET", "repository": "app", "begin": BEGIN + after,
            "end": BEGIN + after + 0.1, "outcome": "whole", "status": 200, "patience": 30.0,
            "cache_status": "staithe; hit",
        }  # fmt: skip
        return Asked(kind=kind, reference=reference, **{**base, **fields})  # type: ignore[arg-type]

    def assert_found(self, *rules: str) -> None:
        self.assertEqual({v.rule for v in judge(self.history)}, set(rules), judge(self.history))

    def assert_well(self) -> None:
        self.assertEqual([str(v) for v in judge(self.history)], [])


class Bytes(Judged):
    def test_the_right_ones_are_well(self) -> None:
        self.add(self.blob(20), self.tag(20, ONE))
        self.add(self.blob(21, method="HEAD", received=0, right=None))
        self.assert_well()

    def test_a_wrong_byte_in_a_whole_answer_is_found(self) -> None:
        self.add(self.blob(20, right=False))
        self.assert_found("bytes")

    def test_a_whole_answer_of_another_length_is_found(self) -> None:
        self.add(self.blob(20, length=999, received=999))
        self.assert_found("bytes")

    def test_a_head_with_another_length_is_found(self) -> None:
        self.add(self.blob(20, method="HEAD", length=1001, received=0, right=None))
        self.assert_found("bytes")

    def test_another_digest_than_asked_for_is_found(self) -> None:
        self.add(self.asked(20, "manifest", ONE, served=TWO, length=500, right=True))
        self.add(self.fetched(19, TWO))
        self.assert_found("bytes")

    def test_what_nobody_has_made_is_found(self) -> None:
        unknown = "sha256:" + "9" * 64
        self.add(self.fetched(19, unknown), self.asked(20, "blob", unknown, right=True))
        self.assertIn("bytes", {v.rule for v in judge(self.history)})

    def test_a_wrong_part_is_excused_only_on_its_way_from_a_liar(self) -> None:
        self.add(Faulted("wrong byte", "lie", BEGIN + 10, BEGIN + 12))
        wrong = {"status": 206, "right": False, "length": 10, "received": 10, "range": "bytes=0-9"}
        self.add(self.blob(11, cache_status="staithe; fwd=miss; stored", **wrong))
        self.assert_well()
        self.add(self.blob(11, **wrong))
        self.assert_found("bytes")


class Times(Judged):
    def test_a_request_beyond_its_deadline_is_found(self) -> None:
        self.add(self.blob(20, end=BEGIN + 51))
        self.assert_found("time")

    def test_a_request_without_end_is_found(self) -> None:
        self.add(self.blob(20, outcome="timeout", status=0, right=None))
        self.assertIn("time", {v.rule for v in judge(self.history)})

    def test_a_slow_client_may_take_its_time(self) -> None:
        self.add(self.blob(20, patience=0.0, end=BEGIN + 200))
        self.assert_well()


class Statuses(Judged):
    def test_none_of_these_is_for_a_client(self) -> None:
        for status in (401, 429, 500):
            with self.subTest(status=status):
                self.setUp()
                self.add(Faulted("x", "network", BEGIN + 19, BEGIN + 21))
                self.add(self.blob(20, status=status))
                self.assert_found("status")

    def test_what_is_wrong_must_not_be_accepted(self) -> None:
        self.add(self.asked(20, "odd", "", note="two hosts"))
        self.assert_found("odd")

    def test_what_is_wrong_must_end(self) -> None:
        self.add(self.asked(20, "odd", "", outcome="timeout", status=0, note="silence"))
        self.assert_found("odd", "time")

    def test_what_is_wrong_may_be_refused_or_cut(self) -> None:
        self.add(self.asked(20, "odd", "", status=400), self.asked(21, "odd", "", outcome="cut"))
        self.history.of(Asked)[-1].status = 0
        self.assert_well()


class Tags(Judged):
    def test_an_answer_within_the_time_of_trust_is_well(self) -> None:
        self.add(self.tag(101.9, ONE), self.fetched(103, TWO), self.tag(110, TWO))
        self.assert_well()

    def test_an_older_answer_is_found(self) -> None:
        self.add(self.tag(103.5, ONE))
        self.assert_found("tags")

    def test_an_answer_that_upstream_gave_while_it_was_asked_is_well(self) -> None:
        # Asked before the tag moved, and answered late: who asks meanwhile shares it.
        self.add(self.fetched(99, "v", method="HEAD", end=BEGIN + 110), self.tag(109, ONE))
        self.assert_well()

    def test_an_older_answer_that_is_marked_stale_is_well_while_upstream_fails(self) -> None:
        self.add(Faulted("registry refuses", "network", BEGIN + 104, BEGIN + 106))
        self.add(self.tag(105, ONE, cache_status="staithe; fwd=stale; detail=unreachable"))
        self.assert_well()

    def test_what_the_tag_never_named_is_found_even_if_stale(self) -> None:
        other = "sha256:" + "3" * 64
        self.add(Made("app", other, 500, {}, BEGIN), self.fetched(1, other))
        self.add(Faulted("registry refuses", "network", BEGIN + 104, BEGIN + 106))
        self.add(self.tag(105, other, cache_status="staithe; fwd=stale; detail=unreachable"))
        self.assert_found("tags")

    def test_a_404_for_a_tag_that_is_there_is_found(self) -> None:
        self.add(Faulted("registry slow", "network", BEGIN + 18, BEGIN + 22))
        self.add(self.tag(20, "", status=404))
        self.assert_found("tags")

    def test_a_404_is_remembered_for_a_moment(self) -> None:
        self.add(Moved("app", "v", "", BEGIN + 150), Moved("app", "v", TWO, BEGIN + 152))
        self.add(self.tag(154, "", status=404))
        self.assert_well()
        self.add(Faulted("registry slow", "network", BEGIN + 160, BEGIN + 164))
        self.add(self.tag(163, "", status=404))
        self.assert_found("tags")

    def test_a_deleted_tag_that_is_served_on_is_found(self) -> None:
        self.add(Moved("app", "v", "", BEGIN + 150), self.fetched(120, TWO), self.tag(160, TWO))
        self.assert_found("tags")


class TagsGoOn(Judged):
    def setUp(self) -> None:
        super().setUp()
        self.add(self.fetched(101, TWO))
        self.add(self.fetched(100.5, "v", method="HEAD", begin=BEGIN + 99.5, end=BEGIN + 104))

    def test_an_older_answer_after_a_newer_one_is_found(self) -> None:
        self.add(self.tag(101, TWO), self.tag(101.5, ONE))
        self.assert_found("tags go on")

    def test_answers_at_the_same_time_may_differ(self) -> None:
        self.add(self.tag(101, TWO, end=BEGIN + 102), self.tag(101.5, ONE))
        self.assert_well()

    def test_what_a_kill_kept_from_the_index_may_be_forgotten(self) -> None:
        self.add(self.tag(101, TWO), Lived("killed", BEGIN + 101.3, 1), self.tag(101.5, ONE))
        self.assert_well()

    def test_what_was_written_long_before_a_kill_may_not(self) -> None:
        self.add(self.fetched(103.9, "v", method="HEAD", begin=BEGIN + 99, end=BEGIN + 110))
        self.add(self.tag(101, TWO), Lived("killed", BEGIN + 105, 1), self.tag(106, ONE))
        self.assert_found("tags go on")


class Rights(Judged):
    def test_after_a_refusal_nothing_is_served(self) -> None:
        self.add(Ruled("app", False, BEGIN + 10))
        self.add(self.tag(12, "", status=403), self.tag(13, ONE))
        self.assert_found("rights")

    def test_after_the_right_is_back_it_is(self) -> None:
        self.add(Ruled("app", False, BEGIN + 10), self.tag(12, "", status=403))
        self.add(Ruled("app", True, BEGIN + 20), self.tag(21, ONE))
        self.assert_well()

    def test_a_right_that_is_gone_for_long_is_not_used(self) -> None:
        self.add(Ruled("app", False, BEGIN + 10), self.tag(50, ONE))
        self.assert_well()
        self.add(self.tag(60, ONE))
        self.assert_found("rights")

    def test_nor_for_lists(self) -> None:
        self.add(Ruled("app", False, BEGIN + 10))
        self.add(self.asked(60, "tags", "list", cache_status="staithe; fwd=bypass"))
        self.assert_found("rights")

    def test_a_digest_through_a_repository_that_never_showed_it_is_found(self) -> None:
        self.add(Ruled("secret", False, BEGIN))
        self.add(self.blob(20, repository="secret"))
        self.assert_found("shown")

    def test_what_was_shown_while_it_was_allowed_is_served_within_its_bound(self) -> None:
        self.add(Ruled("app", False, BEGIN + 10), self.blob(90))
        self.assert_well()


class Fetches(Judged):
    def test_one_after_the_other_is_well(self) -> None:
        self.add(self.transfer(10), self.transfer(20))
        self.assert_well()

    def test_two_at_once_are_found(self) -> None:
        self.add(self.transfer(10), self.transfer(10.5))
        self.assert_found("fetches")

    def test_parts_side_by_side_are_well(self) -> None:
        self.add(self.transfer(10, sent=500), self.transfer(10.5, first=500, sent=500))
        self.assert_well()

    def test_a_part_may_be_split_while_it_comes(self) -> None:
        self.add(self.transfer(10), self.transfer(10.5, first=600, sent=400))
        self.assert_well()

    def test_what_broke_off_may_be_begun_again(self) -> None:
        self.add(self.transfer(10, broken=True), self.transfer(10.5))
        self.assert_well()

    def test_past_a_cache_that_cannot_take_it_each_has_his_own(self) -> None:
        self.add(self.transfer(10), self.transfer(10.5))
        self.add(Faulted("disk full", "disk", BEGIN + 9, BEGIN + 12))
        self.add(self.blob(10, cache_status="staithe; fwd=bypass", end=BEGIN + 11))
        self.assert_well()

    def test_what_is_stored_is_not_fetched(self) -> None:
        self.add(Stayed(BLOB, BEGIN + 15, BEGIN + 30), self.transfer(20))
        self.assert_found("fetches")

    def test_a_transfer_of_no_bytes_fetches_nothing(self) -> None:
        self.add(Stayed(BLOB, BEGIN + 15, BEGIN + 30), self.transfer(20, sent=0, broken=True))
        self.assert_well()

    def test_what_was_evicted_is(self) -> None:
        self.add(Stayed(BLOB, BEGIN + 15, BEGIN + 18), self.transfer(20))
        self.add(Stayed(BLOB, BEGIN + 21, BEGIN + 30))
        self.assert_well()


class Looks(Judged):
    def look(self, after: float, **fields: object) -> Looked:
        base = {
            "at": BEGIN + after, "pid": 1, "rss_kib": 20_000, "descriptors": 50, "threads": 20,
            "disk_bytes": MIB, "mode": "read-write", "registries": {"app": "ok"},
        }  # fmt: skip
        return Looked(**{**base, **fields})  # type: ignore[arg-type]

    def test_a_directory_beyond_its_bound_is_found(self) -> None:
        self.add(self.look(20, disk_bytes=10 * MIB))
        self.assert_well()
        self.add(self.look(21, disk_bytes=10 * MIB + 4096))
        self.assert_found("budget")

    def test_a_smaller_bound_has_its_time(self) -> None:
        self.add(Configured(BEGIN + 20, 5 * MIB, {}, 40.0), self.look(30, disk_bytes=9 * MIB))
        self.assert_well()
        self.add(self.look(36, disk_bytes=9 * MIB))
        self.assert_found("budget")

    def test_a_cache_that_stays_off_is_found(self) -> None:
        self.add(Faulted("disk full", "disk", BEGIN + 10, BEGIN + 20))
        self.add(self.look(34, mode="pass-through"))
        self.assert_well()
        self.add(self.look(36, mode="pass-through"))
        self.assert_found("normal")

    def test_a_registry_that_stays_away_is_found(self) -> None:
        self.add(Faulted("acr silent", "network", BEGIN + 10, BEGIN + 20))
        self.add(self.look(34, registries={"app": "unreachable"}), self.look(35))
        self.add(self.look(36, registries={"app": "unreachable"}), self.look(37))
        self.assert_well()
        for at in (38, 39):
            self.add(self.look(at, registries={"app": "unreachable"}))
        self.assert_found("normal")

    def test_memory_that_grows_is_found(self) -> None:
        for at in range(0, 1800, 10):
            self.add(self.look(at, rss_kib=20_000 + at * 10 + (5000 if at % 50 == 0 else 0)))
        self.assert_found("growth")

    def test_memory_that_goes_up_and_down_is_well(self) -> None:
        for at in range(0, 1800, 10):
            self.add(self.look(at, rss_kib=20_000 + (at * 7919) % 9000))
        self.assert_well()

    def test_descriptors_that_grow_are_found(self) -> None:
        for at in range(0, 1800, 10):
            self.add(self.look(at, descriptors=50 + at // 100))
        self.assert_found("growth")

    def test_blobs_that_are_kept_open_are_no_growth(self) -> None:
        for at in range(0, 1800, 10):
            self.add(self.look(at, descriptors=50 + at // 10, blobs=at // 10))
        self.assert_well()

    def test_the_memory_of_another_process_does_not_count(self) -> None:
        for at in range(0, 1800, 10):
            pid, rss_kib = (1, 20_000) if at < 900 else (2, 90_000)
            self.add(self.look(at, pid=pid, rss_kib=rss_kib))
        self.assert_well()


class Normal(Judged):
    def setUp(self) -> None:
        super().setUp()
        self.add(Faulted("registry refuses", "network", BEGIN + 10, BEGIN + 20))

    def test_a_failure_in_a_fault_and_right_after_is_well(self) -> None:
        self.add(self.blob(15, status=404), self.blob(28, outcome="cut"))
        self.assert_well()

    def test_a_failure_long_after_it_is_found(self) -> None:
        for fields in (
            {"status": 503}, {"status": 404}, {"outcome": "cut"},
            {"outcome": "refused", "status": 0},
            {"cache_status": "staithe; fwd=stale; detail=unreachable"},
        ):  # fmt: skip
            with self.subTest(**fields):
                self.setUp()
                self.add(self.blob(31, **fields))
                self.assert_found("normal")

    def test_what_is_not_there_need_not_be_served(self) -> None:
        absent = "sha256:" + "8" * 64
        self.add(self.asked(31, "blob", absent, status=404))
        self.assert_well()

    def test_a_right_that_was_just_given_has_its_time(self) -> None:
        self.add(Ruled("app", False, BEGIN - 110), Ruled("app", True, BEGIN - 95))
        self.add(self.blob(50, status=404, cache_status="staithe; fwd=miss; detail=denied"))
        self.assert_well()
        self.add(self.blob(70, status=404, cache_status="staithe; fwd=miss; detail=denied"))
        self.assert_found("normal")

    def test_who_leaves_has_no_complaint(self) -> None:
        self.add(self.blob(31, outcome="left", received=10, right=None))
        self.assert_well()


class Lives(Judged):
    def test_an_end_by_itself_is_found(self) -> None:
        self.add(Lived("died", BEGIN + 50, 1, "-6"))
        self.assert_found("life")

    def test_an_end_that_was_asked_for_is_orderly(self) -> None:
        self.add(Lived("stopped", BEGIN + 50, 1, "0"))
        self.assert_well()
        self.add(Lived("stopped", BEGIN + 60, 2, "-9"))
        self.assert_found("life")


class Trends(unittest.TestCase):
    def test_a_line_has_its_slope_whatever_a_few_samples_do(self) -> None:
        samples = [(float(t), 100.0 + 2 * t + (1e6 if t % 10 == 0 else 0)) for t in range(100)]
        found = trend(samples)
        assert found
        self.assertAlmostEqual(found.per_hour / 3600, 2.0, delta=0.2)
        self.assertAlmostEqual(found.growth, 198, delta=20)

    def test_of_two_samples_nothing_is_said(self) -> None:
        self.assertIsNone(trend([(0.0, 1.0), (1.0, 2.0)]))

    def test_many_samples_cost_little(self) -> None:
        found = trend([(float(t), float(t % 7)) for t in range(100_000)])
        assert found
        self.assertEqual(found.samples, 100_000)
        self.assertAlmostEqual(found.growth, 0, delta=3)


class Written(Judged):
    def test_a_history_is_read_as_it_was_written(self) -> None:
        with tempfile.TemporaryDirectory() as directory:
            file = Path(directory) / "history.jsonl"
            written = History(file)
            written.add(self.blob(20))
            written.add(Configured(BEGIN, 1, {"app": 2.0}, 40.0))
            written.close()
            read = History.read(file)
        self.assertEqual(read.of(Asked), [self.blob(20)])
        self.assertEqual(read.of(Configured), [Configured(BEGIN, 1, {"app": 2.0}, 40.0)])


if __name__ == "__main__":
    unittest.main()
