#!/usr/bin/python3
"""Ten times its size goes through a cache: not one byte more than max_size is ever taken, and what
is read again and again stays (F27).

The cache has a file system of its own, so that one figure, taken in a tight loop, holds all that it
takes at an instant: blobs, what is being written, directories, the index, and files that were
removed and are still open in a slow reader. Needs root and a loop device.
"""

from __future__ import annotations

import itertools
import random
import shutil
import subprocess
import sys
import threading
import unittest

from disks import MIB, Disk, enter_private_mounts
from node import REGISTRY, Client, Node, disk_usage
from origin import Image, Origin, make_image
from points import fast_directory, seed

MAX_SIZE = 24 * MIB
THROUGH = 10 * MAX_SIZE
CLIENTS = 4
SLOW_READERS = 2
# What a slow reader takes before it stops to read; sockets hold less than the rest.
TASTE = 64 * 1024

# Prints the most that was taken beyond what is taken now, and how often it has looked. While ext4
# gives a file its blocks, statfs() counts them twice, as promised and as taken, for as long as the
# thread that does it stands between the two (ext4_mb_mark_diskspace_used()); so what is more than
# before counts if it is still there at the looks that follow.
SAMPLER = """
import os, select, sys, time
def taken():
    status = os.statvfs(sys.argv[1])
    return (status.f_blocks - status.f_bfree) * status.f_frsize
begin, most, looks = taken(), 0, 0
print("ready", flush=True)
while not select.select([sys.stdin], [], [], 0.0002)[0]:
    now = taken() - begin
    for again in range(4 if now > most else 0):
        time.sleep(0.001)
        now = min(now, taken() - begin)
    most = max(most, now)
    looks += 1
print(most, looks)
"""


class Churn(unittest.TestCase):
    def setUp(self) -> None:
        enter_private_mounts()
        home = fast_directory("staithe-churn-")
        self.addCleanup(shutil.rmtree, home, ignore_errors=True)
        disk = Disk("ext4", home / "disk.img", home / "disk", 256 * MIB)
        try:
            disk.make().mount()
        except (RuntimeError, FileNotFoundError) as error:
            self.skipTest(f"no ext4 behind a loop device here: {error}")
        self.addCleanup(disk.unmount)
        self.chance = random.Random(seed())
        self.origin = Origin()
        self.addCleanup(self.origin.close)
        self.node = Node(home / "node", self.origin, disk.place / "cache", max_size=MAX_SIZE)
        # A sentence per request is as much work as the request.
        self.node.configured({"log": {"level": "info"}})
        self.addCleanup(self.node.stop)
        self.sampler = subprocess.Popen(
            [sys.executable, "-c", SAMPLER, str(disk.place)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.addCleanup(self.sampler.communicate)
        self.assertEqual(self.sampler.stdout.readline(), "ready\n")
        self.stored: list[str] = []  # the Cache-Status of what was pulled

    def image(self, name: str, sizes: list[int]) -> Image:
        return self.origin.add(make_image(name, sizes, seed()))

    def pin(self) -> list[Image]:
        """Images that were pulled and pinned, and that nobody reads until the end."""
        images = [self.image(f"pinned{i}", [200_000 + i, 500_000 + i, 30_000 + i]) for i in range(2)]
        for image in images:
            self.node.pull(image)
            self.node.control("POST", "/v1/pin", {"image": f"{REGISTRY}/{image.repository}:1"})
        return images

    def test_the_bound_holds_and_what_is_used_stays(self) -> None:
        self.node.start()
        pinned = self.pin()
        self.used = self.image("used", [300_000, 800_000, 40_000])
        self.node.pull(self.used)
        images = self.passing_images()
        self.passing = itertools.chain(images)
        self.lock = threading.Lock()
        self.problems: list[BaseException] = []
        workers = [self.pull_some] * CLIENTS + [self.read_slowly] * SLOW_READERS
        threads = [threading.Thread(target=self.guarded, args=(worker,)) for worker in workers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if self.problems:
            raise self.problems[0]
        for image in pinned:
            self.node.pull(image)
        cache = self.node.settle()["cache"]
        used_now = disk_usage(self.node.cache)
        self.node.stop_cleanly()
        most, looks = map(int, self.sampler.communicate("\n")[0].split())
        passed_by = sum("bypass" in status for status in self.stored)
        print(
            f"churn_test: {sum(image.bytes for image in images) >> 20} MiB through "
            f"{MAX_SIZE} bytes, {looks} looks, at most {most} bytes taken, {used_now} at the end, "
            f"where the status said {cache['bytes']}; {cache['evicted']} evicted, "
            f"{passed_by} of {len(self.stored)} blobs passed by"
        )
        self.assertLessEqual(most, MAX_SIZE)
        self.assertLessEqual(used_now, MAX_SIZE)
        self.assertGreater(cache["evicted"], len(images))
        # A cache that stores nothing would be within its bound, too.
        self.assertLess(passed_by, len(self.stored) / 4)
        for image in [self.used, *pinned]:
            fetches = {digest: self.origin.fetches(digest) for digest in image.blobs}
            self.assertEqual(set(fetches.values()), {1}, f"{image.repository}: {fetches}")
        self.node.check_files()
        self.node.check_index()

    def passing_images(self) -> list[Image]:
        """In random order, some of them more than once; few blobs are large."""
        images: list[Image] = []
        left = THROUGH
        while left > 0:
            sizes = [int(2 ** self.chance.uniform(8, 21)) for _ in range(6)]
            images.append(self.image(f"passing{len(images)}", sizes))
            left -= images[-1].bytes
        again = self.chance.sample(images, len(images) // 5)
        images += again
        self.chance.shuffle(images)
        return images

    def guarded(self, worker) -> None:
        try:
            worker()
        except BaseException as error:
            with self.lock:
                self.problems.append(error)

    def next_image(self) -> Image | None:
        with self.lock:
            return None if self.problems else next(self.passing, None)

    def pull_some(self) -> None:
        with self.node.client() as client:
            while image := self.next_image():
                self.pull(client, image)
                self.pull(client, self.used)

    def pull(self, client: Client, image: Image) -> None:
        client.manifest(image, "1")
        for digest in image.blobs:
            self.stored.append(client.blob(image, digest))

    def read_slowly(self) -> None:
        """Takes the beginning of a large blob, and the rest once others have had it evicted."""
        while image := self.next_image():
            digest = max(image.blobs, key=lambda d: len(image.blobs[d]))
            with self.node.client() as client:
                client.manifest(image, "1")
                with client.open(image, digest) as reading:
                    reading.take(TASTE)
                    others = [self.next_image() for _ in range(3)]
                    with self.node.client() as other:
                        for passing in others:
                            if passing:
                                self.pull(other, passing)
                                self.pull(other, self.used)
                    reading.take_rest()


if __name__ == "__main__":
    unittest.main()
