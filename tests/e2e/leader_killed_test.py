#!/usr/bin/python3
"""Whoever began a transfer may die, and a thousand may want it: it is one, and it goes on.

CI kills 40 leaders, and its crowd wants 2 MiB. The long run:
    STAITHE_LEADERS=1000 STAITHE_CROWD_MIB=64 /usr/bin/python3 tests/e2e/leader_killed_test.py
"""

from __future__ import annotations

import random
import resource
import selectors
import unittest

from rough_case import MIB, Connection, RoughCase, full_size, wait_for

LEADERS = full_size("STAITHE_LEADERS", 40)
FOLLOWERS = 6
CROWD = 1000
CROWD_SIZE = full_size("STAITHE_CROWD_MIB", 2) * MIB
# What a reader may cost the daemon, and what the transfer itself may.
KIB_PER_CLIENT = 64
KIB_FOR_ALL = 48 * 1024
SPARE = 1.02


class LeaderKilled(RoughCase):
    limits = {"upstream_connect": "5s", "upstream_first_byte": "60s", "upstream_stall": "60s"}

    def setUp(self) -> None:
        super().setUp()
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, 65536), most))
        self.node.start()

    def readers(self) -> int:
        return sum(fill["readers"] for fill in self.node.status()["fills"])

    def test_no_follower_fails_when_the_leader_is_killed(self) -> None:
        chance = random.Random(f"{LEADERS}")
        for number in range(LEADERS):
            size = chance.choice((MIB, 3 * MIB, 10 * MIB)) + chance.randrange(MIB)
            # Killed while upstream has answered nothing, or something, or nearly all.
            at = chance.choice((0, 1, size // 3, size - 2))
            with self.subTest(number=number, size=size, at=at):
                self.kill_a_leader(chance.randbytes(size), at)
        self.node.settle()
        self.node.check_files()

    def kill_a_leader(self, truth: bytes, at: int) -> None:
        digest = self.origin.add_blob(truth)
        self.origin.gate.close(at, len(truth))
        leader = self.connect().ask(self.target(digest))
        self.origin.wait_for(lambda: bool(self.origin.transfers(digest)))
        if at > 1:
            leader.read_body(1)
            self.assertIn("fwd=miss; stored", leader.reply().headers["cache-status"])
        followers = [self.connect().ask(self.target(digest)) for _ in range(FOLLOWERS)]
        # With headers they are readers; without, they stand in the same queue as the leader.
        if at > 1:
            for follower in followers:
                follower.read_body(1)
                self.assertIn("collapsed", follower.reply().headers["cache-status"])
        leader.reset()
        if at > 1:
            try:
                wait_for(lambda: self.readers() == FOLLOWERS, 30, "the leader's end")
            except TimeoutError:
                self.fail(f"the leader still reads: {self.node.status()['fills']}")
        self.origin.gate.open()
        for follower in followers:
            self.assert_whole(follower.rest(), truth)
            follower.socket.close()
        self.node.wait_until_stored()
        self.assertLessEqual(self.origin.sent(digest), len(truth) * SPARE, "more than one transfer")
        self.origin.remove_blob(digest)

    def test_a_thousand_clients_of_one_cold_blob_are_one_transfer(self) -> None:
        truth = random.Random(CROWD_SIZE).randbytes(CROWD_SIZE)
        digest = self.origin.add_blob(truth)
        self.origin.gate.close(CROWD_SIZE // 2, CROWD_SIZE)
        idle = self.daemon_kib()
        crowd = [self.connect(240).ask(self.target(digest)) for _ in range(CROWD)]
        wait_for(lambda: self.readers() == CROWD, 120, "all to be readers of the fill")
        held = self.daemon_kib()
        self.origin.gate.open()
        right = read_all(crowd, truth)
        most = self.daemon_kib("VmHWM")
        for client in crowd:
            client.socket.close()
        self.node.wait_until_stored()
        print(
            f"\n{CROWD} clients of {CROWD_SIZE // MIB} MiB: the daemon takes {idle // 1024} MiB "
            f"idle, {held // 1024} MiB with all of them half-way, {most // 1024} MiB at most; "
            f"{len(self.origin.transfers(digest))} requests upstream"
        )
        self.assertEqual(right, CROWD)
        self.assertLessEqual(self.origin.sent(digest), CROWD_SIZE * SPARE)
        bound = idle + KIB_FOR_ALL + CROWD * KIB_PER_CLIENT
        self.assertLessEqual(most, bound, "KiB of memory")


def read_all(crowd: list[Connection], truth: bytes) -> int:
    """Reads all of them as they come; gives how many got the truth and an end."""
    selector = selectors.DefaultSelector()
    expected = memoryview(truth)
    at: dict[Connection, int] = {}
    for client in crowd:
        client.socket.settimeout(0)
        selector.register(client.socket, selectors.EVENT_READ, client)
    buffer = bytearray(1 << 18)
    piece = memoryview(buffer)
    right = 0
    while selector.get_map():
        ready = selector.select(60)
        if not ready:
            break
        for key, _ in ready:
            client = key.data
            if client not in at:
                client.received += client.socket.recv(4096)
                head = client.received.find(b"\r\n\r\n")
                if head < 0:
                    continue
                body = memoryview(client.received)[head + 4 :]
                same = client.received.startswith(b"HTTP/1.1 200 ")
                came, at[client] = len(body), 0
            else:
                came = client.socket.recv_into(buffer)
                body = piece[:came]
                same = True
                if not came:
                    right += at[client] == len(expected)
                    selector.unregister(client.socket)
                    continue
            if not same or expected[at[client] : at[client] + came] != body:
                selector.unregister(client.socket)
                continue
            at[client] += came
    selector.close()
    return right


if __name__ == "__main__":
    unittest.main()
