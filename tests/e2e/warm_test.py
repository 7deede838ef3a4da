#!/usr/bin/python3
"""`staithe warm` and [warm]: images are there before their pulls, and pulls go first."""

from __future__ import annotations

import json
import signal
import subprocess
import threading
import time
import unittest
from collections.abc import Callable
from typing import Any

from lab import MIB, LabTest
from staithed import toml

ONE = "contoso/warm-one:1"
TWO = "contoso/warm-two:1"
THREE = "contoso/warm-three:1"
MULTI = "contoso/multi:1"
SIZE = 16 * MIB


def named(image: str) -> str:
    """As the cache calls it: the origin's first component is the registry's name."""
    registry, _, rest = image.partition("/")
    return f"{registry}.azurecr.io/{rest}"


class Warm(LabTest):
    noise = [(ONE, SIZE), (TWO, SIZE), (THREE, SIZE)]

    def setUp(self) -> None:
        super().setUp()
        self.staithed = self.lab.staithed
        self.staithed.start()

    def warm(self, *words: str, status: int = 0) -> list[dict[str, Any]]:
        done = self.staithed.command("warm", "--json", *words)
        self.assertEqual(done.returncode, status, done.stdout + done.stderr)
        return [json.loads(line) for line in done.stdout.splitlines()]

    def begin(self, *words: str) -> subprocess.Popen[str]:
        """A warm that goes on meanwhile; each of its lines is JSON."""
        line = self.staithed.command_line("warm", "--json", *words)
        child = subprocess.Popen(line, stdout=subprocess.PIPE, text=True)
        assert child.stdout
        self.addCleanup(child.stdout.close)
        self.addCleanup(child.wait)
        self.addCleanup(child.kill)
        return child

    def wait_until(self, condition: Callable[[], bool], what: str, seconds: float = 30) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            self.assertLess(time.monotonic(), deadline, what)
            time.sleep(0.02)

    def layer(self, image: str) -> str:
        return self.lab.image(image)["layers"][0]["digest"]

    def blob_gets(self) -> dict[str, int]:
        return self.lab.azure.stats()["blob_gets"]

    def assert_pulls_without_upstream(self, image: str) -> None:
        """Everything comes from the cache, upstream answers nothing."""
        pulled = self.lab.skopeo().pull(f"{self.staithed.address}/{named(image)}")
        self.assertEqual(pulled, self.lab.digest(image))

    def cut_off(self) -> None:
        self.lab.azure.faults(
            *({"role": role, "action": {"close": -1}} for role in ("acr", "hub", "storage"))
        )

    def test_images_by_name_and_list_are_there_when_upstream_is_gone(self) -> None:
        images = self.lab.directory / "images.txt"
        images.write_text(f"# the second\n\n  {named(TWO)}  # with a comment\n")
        lines = self.warm(named(ONE), "--file", str(images))
        self.assertEqual(lines[-1]["images"], 2)
        self.assertEqual(lines[-1]["failed"], 0)
        self.assertGreaterEqual(lines[-1]["bytes_fetched"], 2 * SIZE)
        states = {line["image"]: line["state"] for line in lines if line["kind"] == "image"}
        self.assertEqual(states, {named(ONE): "done", named(TWO): "done"})
        blobs = {line["digest"]: line for line in lines if line["kind"] == "blob"}
        self.assertEqual(blobs[self.layer(ONE)]["state"], "done")
        self.assertEqual(blobs[self.layer(ONE)]["bytes"], SIZE)
        self.cut_off()
        self.assert_pulls_without_upstream(ONE)
        self.assert_pulls_without_upstream(TWO)
        self.assertEqual(self.lab.azure.stats()["blob_sent"][self.layer(ONE)], SIZE)
        # What the tag was may be served stale, and that is here.
        self.assertEqual(self.warm(named(ONE))[-1]["bytes_fetched"], 0)

    def test_a_list_comes_from_standard_input_too(self) -> None:
        line = self.staithed.command_line("warm", "--file", "-")
        done = subprocess.run(
            line, input=f"{named(ONE)}\n", capture_output=True, text=True, timeout=30, check=False
        )
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn(f"{named(ONE)}  warm  16.0 MiB\n", done.stdout)
        self.assertIn("1 of 1 image is warm: 16.0 MiB fetched", done.stdout)
        self.assertNotIn("\x1b", done.stdout)

    def test_a_second_time_nothing_is_fetched(self) -> None:
        self.warm(named(ONE))
        before = self.blob_gets()
        lines = self.warm(named(ONE))
        self.assertEqual(self.blob_gets(), before)
        self.assertEqual(lines[-1]["bytes_fetched"], 0)
        self.assertGreaterEqual(lines[-1]["bytes_cached"], SIZE)
        self.assertEqual([x["state"] for x in lines if x["kind"] == "image"][-1], "cached")

    def test_of_an_index_it_takes_one_platform_or_all(self) -> None:
        children = self.lab.image(MULTI)["children"]
        index = self.lab.digest(MULTI)
        self.warm(named(MULTI), "--platform", "linux/arm64/v8")
        self.assertEqual(set(self.staithed.manifest_files()), {index, children["arm64"]})
        self.warm(named(MULTI), "--platform", "all")
        self.assertEqual(set(self.staithed.manifest_files()), {index, *children.values()})
        blobs = {layer["digest"] for layer in self.lab.image(MULTI)["layers"]}
        self.assertLessEqual(blobs, set(self.staithed.blob_files()))

    def test_a_platform_that_is_not_there_is_said_with_those_that_are(self) -> None:
        done = self.staithed.command("warm", named(MULTI), "--platform", "linux/s390x")
        self.assertEqual(done.returncode, 1)
        self.assertIn("linux/amd64, linux/arm64", done.stderr)
        self.assertEqual(self.staithed.blob_files(), {})

    def test_what_is_wrong_is_said_before_anything_is_begun(self) -> None:
        images = self.lab.directory / "images.txt"
        images.write_text(f"{named(ONE)}\nNot A Name\n\nbusybox:\n")
        for words, said in (
            (["--file", str(images)], [f"{images}:2: ", f"{images}:4: "]),
            (["--file", str(images) + ".not"], ["No such file"]),
            (["--file", str(self.lab.directory)], ["cannot be read"]),
            ([named(ONE), "--platform", "linux/amd46"], ['did you mean "amd64"?']),
            ([named(ONE) + ":2:3"], ["is not an image's name"]),
            ([], ["is missing"]),
        ):
            with self.subTest(words):
                done = self.staithed.command("warm", *words)
                self.assertEqual(done.returncode, 2, done.stderr)
                for text in said:
                    self.assertIn(text, done.stderr)
        self.assertEqual(self.staithed.blob_files(), {})

    def test_one_image_that_fails_does_not_hinder_the_others(self) -> None:
        done = self.staithed.command(
            "warm", "other.example/app:1", named(ONE), "contoso.azurecr.io/none:1"
        )
        self.assertEqual(done.returncode, 1)
        self.assertIn("other.example/app:1: the registry other.example is not con", done.stderr)
        self.assertIn("contoso.azurecr.io/none:1: ", done.stderr)
        self.assertIn("1 of 3 images is warm", done.stdout)
        self.assertIn(self.layer(ONE), self.staithed.blob_files())

    def test_an_upstream_that_is_gone_fails_its_images(self) -> None:
        self.cut_off()
        lines = self.warm(named(ONE), status=1)
        self.assertEqual(lines[-1]["failed"], 1)
        self.lab.azure.faults()

    def test_a_cache_that_is_too_small_is_said_before_it_is_filled(self) -> None:
        self.staithed.stop()
        self.staithed.configured({"cache": {"max_size": "24MiB", "min_free": "0"}}).start()
        lines = self.warm(named(ONE), named(TWO), status=1)
        (error,) = lines[-1]["errors"]
        self.assertEqual(error["image"], named(TWO))
        self.assertIn("raise cache.max_size", error["error"])
        self.assertIn(self.layer(ONE), self.staithed.blob_files())
        self.assertNotIn(self.layer(TWO), self.blob_gets())

    def begin_three(self) -> subprocess.Popen[str]:
        """Three images on their way; one of their layers stands half-way."""
        self.lab.azure.faults(
            {"role": "storage", "skip": 3, "action": {"hold": "half-way", "at": SIZE // 2}}
        )
        child = self.begin(named(ONE), named(TWO), named(THREE))
        self.lab.azure.wait_until_held("half-way")
        return child

    def warm_three_again(self) -> None:
        """Everything is there in the end, and no blob that was there is asked for again."""
        there = set(self.staithed.blob_files())
        before = self.blob_gets()
        self.lab.azure.faults()
        self.warm(named(ONE), named(TWO), named(THREE))
        after = self.blob_gets()
        self.assertEqual([d for d in there if after[d] != before[d]], [])
        for image in (ONE, TWO, THREE):
            stored = self.staithed.blob_files()[self.layer(image)].read_bytes()
            self.assert_bytes(stored, self.lab.origin_file(self.layer(image)).read_bytes())

    def test_interrupted_it_goes_on_where_it_was(self) -> None:
        child = self.begin_three()
        child.send_signal(signal.SIGINT)
        self.assertEqual(child.wait(30), -signal.SIGINT)
        # What was under way ends, and nothing further is begun.
        self.wait_until(lambda: not self.staithed.status()["warm"]["running"], "it goes on")
        begun = set(self.blob_gets())
        self.lab.azure.release("half-way")
        self.staithed.wait_until_stored()
        self.assertEqual(set(self.blob_gets()), begun)
        self.assertLessEqual(begun, set(self.staithed.blob_files()))
        self.warm_three_again()

    def test_a_daemon_that_was_killed_goes_on_as_well(self) -> None:
        child = self.begin_three()
        self.staithed.kill()
        self.assertEqual(child.wait(30), 1)
        self.staithed.start()
        self.warm_three_again()

    def test_a_pull_goes_first(self) -> None:
        # A client's blob stands still; while it does, no blob is begun for the warm for a while.
        self.lab.azure.faults(
            {"role": "storage", "times": 1, "action": {"hold": "client", "after": MIB}}
        )
        target = f"/v2/contoso.azurecr.io/warm-one/blobs/{self.layer(ONE)}"
        pulled: list[bytes] = []
        client = threading.Thread(target=lambda: pulled.append(self.staithed.get(target).body))
        client.start()
        self.lab.azure.wait_until_held("client")
        child = self.begin(named(TWO))
        assert child.stdout
        lines = (json.loads(line) for line in child.stdout)
        self.assertTrue(any(line["kind"] == "waiting" for line in lines))
        self.assertNotIn(self.layer(TWO), self.blob_gets())
        self.assertEqual(self.staithed.status()["warm"]["running"][0]["waits_for_client_fills"], 1)
        self.assertIn("waits for 1 pull", self.staithed.command("status").stdout)
        self.lab.azure.release("client")
        client.join(30)
        self.assert_bytes(pulled[0], self.lab.origin_file(self.layer(ONE)).read_bytes())
        rest = [json.loads(line) for line in child.stdout]
        self.assertEqual(child.wait(30), 0)
        self.assertEqual(rest[-1]["failed"], 0)
        self.assertIn(self.layer(TWO), self.staithed.blob_files())

    def test_without_a_daemon_it_says_so(self) -> None:
        self.staithed.stop()
        self.assertEqual(self.staithed.command("warm", named(ONE)).returncode, 3)


class WarmAtBoot(LabTest):
    noise = [(ONE, SIZE), (TWO, SIZE)]

    def setUp(self) -> None:
        super().setUp()
        self.staithed = self.lab.staithed

    def configured(self) -> dict[str, Any]:
        return self.staithed.status()["warm"]["configured"]

    def wait_until(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + 30
        while not condition():
            self.assertLess(time.monotonic(), deadline, f"{what}: {self.configured()}")
            time.sleep(0.02)

    def test_configured_images_are_warm_soon_after_the_start(self) -> None:
        self.staithed.configured({"warm": {"images": [named(ONE)]}}).start()
        self.wait_until(lambda: self.configured()["warm"] == 1, "not warm")
        layer = self.lab.image(ONE)["layers"][0]["digest"]
        self.assertIn(layer, self.staithed.blob_files())

        # A reload adds one, and asks for no other again.
        before = self.lab.azure.stats()["blob_gets"]
        self.staithed.configured({"warm": {"images": [named(ONE), named(TWO)]}})
        self.staithed.config_file.write_text(toml(self.staithed.config))
        self.assertEqual(self.staithed.command("reload").returncode, 0)
        self.wait_until(lambda: self.configured()["warm"] == 2, "not warm")
        self.assertEqual(self.lab.azure.stats()["blob_gets"][layer], before[layer])

    def test_what_fails_is_told_and_tried_again_later(self) -> None:
        self.staithed.configured({"warm": {"images": ["contoso.azurecr.io/none:1"]}}).start()
        self.wait_until(lambda: self.configured()["failed"] == 1, "not failed")
        self.wait_until(lambda: self.configured()["next_try_in_seconds"] is not None, "not again")
        self.assertIn("contoso.azurecr.io/none:1", self.staithed.command("status").stdout)
        self.assertEqual(self.staithed.stop(), 0)

    def test_a_name_that_cannot_be_warmed_is_a_fault_of_the_file(self) -> None:
        self.staithed.configured({"warm": {"images": ["other.example/app:1"], "platform": "x/y"}})
        self.staithed.config_file.write_text(toml(self.staithed.config))
        checked = subprocess.run(
            [
                self.staithed.command_line()[0] + "d",
                "--check",
                "--config",
                self.staithed.config_file,
            ],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        self.assertEqual(checked.returncode, 2)
        self.assertIn('warm.images: "other.example/app:1" is an image of other.example, which is',
                      checked.stderr)  # fmt: skip
        self.assertIn("warm.platform: ", checked.stderr)


if __name__ == "__main__":
    unittest.main()
