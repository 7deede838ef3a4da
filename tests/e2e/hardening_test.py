#!/usr/bin/python3
"""What the compiler and the linker have done to each program, read from the program itself."""

from __future__ import annotations

import json
import platform
import re
import unittest
from pathlib import Path

from clean_root import run
from staithed import REPOSITORY_ROOT, binary

PROGRAMS = ("staithed", "staithe", "docker-credential-staithe", "staithe-credential-provider")
FLAGS = ["-fPIE", "-D_FORTIFY_SOURCE=3", "-D_GLIBCXX_ASSERTIONS", "-fstack-protector-strong",
         "-fstack-clash-protection"]  # fmt: skip
# By machine: the flag, and the instruction that every function begins with which may be the end of
# an indirect call.
LANDING = {
    "x86_64": ("-fcf-protection", bytes.fromhex("f30f1efa")),  # endbr64
    "aarch64": ("-mbranch-protection=standard", None),
}
# The C library's own, which Debian 12 builds without it.
START = {"_start"}


def readelf(*words: object) -> str:
    return run("readelf", "--wide", *words).stdout


class Hardening(unittest.TestCase):
    def test_they_stand_at_no_address_that_is_known_before(self) -> None:
        for program in map(binary, PROGRAMS):
            with self.subTest(program=program.name):
                self.assertRegex(readelf("--file-header", program), r"Type:\s+DYN")
                self.assertRegex(readelf("--dynamic", program), r"\(FLAGS_1\).*\bPIE\b")

    def test_what_the_loader_writes_is_read_only_when_main_begins(self) -> None:
        for program in map(binary, PROGRAMS):
            with self.subTest(program=program.name):
                dynamic = readelf("--dynamic", program)
                self.assertRegex(dynamic, r"\(FLAGS\).*\bBIND_NOW\b")
                self.assertRegex(dynamic, r"\(FLAGS_1\).*\bNOW\b")
                self.assertNotIn("(TEXTREL)", dynamic)
                # No library from a place that somebody else may write to.
                self.assertNotRegex(dynamic, r"\((RPATH|RUNPATH)\)")
                headers = readelf("--program-headers", program)
                relro = re.search(r"GNU_RELRO\s+\S+ (0x\S+) \S+ \S+ (0x\S+) R\s", headers)
                assert relro, headers
                begin, size = int(relro[1], 16), int(relro[2], 16)
                sections = readelf("--sections", program)
                for name in (".got", ".got.plt", ".dynamic", ".init_array", ".data.rel.ro"):
                    found = re.search(rf"\] {re.escape(name)}\s+\S+\s+(\w+) \w+ (\w+)", sections)
                    if found:
                        at, length = int(found[1], 16), int(found[2], 16)
                        self.assertTrue(begin <= at and at + length <= begin + size, name)

    def test_nothing_is_written_to_and_run(self) -> None:
        for program in map(binary, PROGRAMS):
            with self.subTest(program=program.name):
                headers = readelf("--program-headers", program)
                self.assertRegex(headers, r"GNU_STACK\s+(\S+ ){5}RW \s")
                flags = re.findall(r"^  LOAD\s+(?:0x\S+ +){5}([R ][W ][E ])", headers, re.M)
                self.assertGreaterEqual(len(flags), 3, headers)
                self.assertFalse([f for f in flags if "W" in f and "E" in f])

    def test_their_functions_check_what_they_are_given(self) -> None:
        for program in map(binary, PROGRAMS):
            with self.subTest(program=program.name):
                wanted = set(re.findall(r"UND (\w+)", readelf("--dyn-syms", program)))
                self.assertIn("__stack_chk_fail", wanted)  # -fstack-protector-strong
                self.assertTrue({s for s in wanted if re.fullmatch(r"__\w+_chk", s)}, "FORTIFY")
                # -D_GLIBCXX_ASSERTIONS; and our own assertions are on as well.
                self.assertTrue([s for s in wanted if "glibcxx_assert_fail" in s])
                self.assertIn("__assert_fail", wanted)

    def test_indirect_calls_have_a_place_to_land(self) -> None:
        _, landing = LANDING[platform.machine()]
        if landing is None:
            self.skipTest("only the flag is looked at on this machine")
        for program in map(binary, PROGRAMS):
            with self.subTest(program=program.name):
                functions = _functions(program)
                self.assertGreater(len(functions), 50)
                content = program.read_bytes()
                bare = {f for f, at in functions.items() if not content.startswith(landing, at)}
                self.assertLessEqual(bare, START)

    def test_every_file_was_compiled_with_the_flags(self) -> None:
        commands = binary("staithed").parent / "compile_commands.json"
        flags = [*FLAGS, LANDING[platform.machine()][0]]
        ours = [c for c in json.loads(commands.read_text())
                if re.search(r"/(cache|proxy|daemon)/\w", Path(c["file"]).as_posix())
                and "/tests/" not in c["file"]]  # fmt: skip
        compiled = {source for c in ours for source in _sources(Path(c["file"]))}
        wanted = {p for folder in ("cache", "proxy", "daemon")
                  for p in (REPOSITORY_ROOT / folder).rglob("*.cc")}  # fmt: skip
        self.assertGreater(len(wanted), 100)
        self.assertEqual(wanted - compiled, set())
        for command in ours:
            words = command["command"].split()
            self.assertEqual([f for f in flags if f not in words], [], command["file"])


def _sources(compiled: Path) -> list[Path]:
    """What is compiled with that file: many sources may be grouped in one."""
    if "Unity" not in compiled.parts:
        return [compiled]
    return [Path(name) for name in re.findall(r'#include "(.+\.cc)"', compiled.read_text())]


def _functions(program: Path) -> dict[str, int]:
    """Global functions and where they begin in the file."""
    segments = [
        tuple(int(number, 16) for number in found)
        for found in re.findall(r"^  LOAD\s+(0x\S+) (0x\S+) 0x\S+ (0x\S+)",
                                readelf("--program-headers", program), re.M)
    ]  # fmt: skip
    found = {}
    for at, name in re.findall(r"^\s*\d+: (\w+)\s+\S+ FUNC +(?:GLOBAL|WEAK) +\w+ +\d+ (\S+)",
                               readelf("--syms", program), re.M):  # fmt: skip
        address = int(at, 16)
        for offset, begin, size in segments:
            if begin <= address < begin + size:
                found[name] = address - begin + offset
    return found


if __name__ == "__main__":
    unittest.main()
