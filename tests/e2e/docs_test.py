#!/usr/bin/python3
"""The pages do not rot: links lead somewhere, files that they name exist, and messages are ours."""

from __future__ import annotations

import json
import re
import subprocess
import tomllib
import unittest
from collections.abc import Iterator
from pathlib import Path

import lab  # noqa: F401  (the path of the modules below)
from staithed import binary

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("bench", "docs", "etc", "tests")

FENCE = re.compile(r"^(```|~~~).*?^\1[ \t]*$", re.DOTALL | re.MULTILINE)
CODE = re.compile(r"`[^`\n]*`")
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```[ \t]*$", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"!?\[[^\]\n]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#{1,6} +(.+?) *$", re.MULTILINE)
# `tests/e2e/warm_test.py`, but neither a pattern nor a path on the reader's machine.
NAMED_FILE = re.compile(
    r"`((?:bench|cache|daemon|docs|etc|proxy|systemd|tests)/[\w./-]+"
    r"\.(?:cc|h|hcl|html|json|md|png|py|service|socket|svg|toml|yaml|yml))`"
)
LITERAL = re.compile(r'"((?:[^"\\\n]|\\.)*)"')
LITERALS = re.compile(rf"{LITERAL.pattern}(?:\s*{LITERAL.pattern})*")
RAW_LITERAL = re.compile(r'R"(\w*)\((.*?)\)\1"', re.DOTALL)
COMMENT = re.compile(r"^\s*//.*$", re.MULTILINE)
GAP = "…"
# A command up to its end, or a comment's.
COMMAND = re.compile(r"(?:^|[|(&;`] *|sudo )(staithed?) ([a-z-][^|;&#)`]*)")


def pages() -> list[Path]:
    found = list(ROOT.glob("*.md"))
    for folder in FOLDERS:
        found += (ROOT / folder).rglob("*.md")
    return sorted(found)


def prose(page: Path) -> str:
    """Its text without what stands there as code."""
    return CODE.sub("", FENCE.sub("", page.read_text()))


def anchors(page: Path) -> set[str]:
    """The names of its headings, as forges make them."""
    found: set[str] = set()
    for heading in HEADING.findall(FENCE.sub("", page.read_text())):
        words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        name = re.sub(r"[^\w\- ]", "", words).replace(" ", "-")
        again = 1
        unique = name
        while unique in found:
            unique = f"{name}-{again}"
            again += 1
        found.add(unique)
    return found


def sentences() -> dict[str, list[str]]:
    """Every string of each of the product's sources, as at run time but for what is put in."""
    said: dict[str, list[str]] = {}
    for folder in ("cache", "proxy", "proxy/auth", "daemon"):
        for source in sorted((ROOT / folder).glob("*.[ch]*")):
            text = COMMENT.sub("", source.read_text())
            strings = said.setdefault(str(source), [])
            strings += [raw.group(2) for raw in RAW_LITERAL.finditer(text)]
            for found in LITERALS.finditer(text):
                joined = "".join(part.group(1) for part in LITERAL.finditer(found.group()))
                strings.append(
                    joined.replace('\\"', '"').replace("\\n", "\n").replace("\\\\", "\\")
                )
    return said


def messages(page: Path) -> list[str]:
    """What stands in the first column of the tables whose first heading is "message"."""
    found = []
    wanted = False
    for line in page.read_text().splitlines():
        if not line.startswith("|"):
            wanted = False
            continue
        first = line.split("|")[1].strip()
        if first == "message":
            wanted = True
        elif wanted and not set(first) <= set("-:"):
            spans = CODE.findall(first)
            assert len(spans) == 1, f"one message, in backticks: {line}"
            found.append(spans[0].strip("`"))
    return found


class Links(unittest.TestCase):
    def test_every_link_within_the_repository_leads_somewhere(self) -> None:
        checked = 0
        for page in pages():
            for target in LINK.findall(prose(page)):
                if re.match(r"[a-z][a-z0-9+.-]*:", target):
                    continue
                checked += 1
                path, _, anchor = target.partition("#")
                where = (page.parent / path).resolve() if path else page
                with self.subTest(page=str(page.relative_to(ROOT)), link=target):
                    self.assertTrue(where.exists(), "there is no such file")
                    self.assertTrue(where.is_relative_to(ROOT), "it leads out of the repository")
                    if anchor:
                        self.assertIn(anchor, anchors(where), "there is no such heading")
        self.assertGreater(checked, 50)

    def test_every_file_that_is_named_exists(self) -> None:
        for page in pages():
            for name in NAMED_FILE.findall(page.read_text()):
                with self.subTest(page=str(page.relative_to(ROOT)), file=name):
                    self.assertTrue((ROOT / name).exists())

    def test_every_page_is_in_the_index(self) -> None:
        docs = ROOT / "docs"
        listed = {(docs / link.partition("#")[0]).resolve() for link in
                  LINK.findall(prose(docs / "README.md"))}  # fmt: skip
        for page in docs.glob("*.md"):
            if page.name != "README.md":
                with self.subTest(page=page.name):
                    self.assertIn(page.resolve(), listed)


class Blocks(unittest.TestCase):
    """What readers paste is well-formed."""

    def blocks(self, *languages: str) -> Iterator[tuple[str, str]]:
        for page in pages():
            for language, text in BLOCK.findall(page.read_text()):
                if language in languages:
                    yield str(page.relative_to(ROOT)), text

    def test_toml_is_toml(self) -> None:
        found = list(self.blocks("toml"))
        self.assertGreater(len(found), 20)
        for page, text in found:
            with self.subTest(page=page, text=text):
                tomllib.loads(text)

    def test_json_is_json(self) -> None:
        for page, text in self.blocks("json"):
            with self.subTest(page=page, text=text):
                # Some show fields of an object without its braces.
                whole = text.lstrip().startswith(("{", "["))
                json.loads(text if whole else "{" + text.rstrip().rstrip(",") + "}")

    def test_shell_is_shell(self) -> None:
        found = list(self.blocks("sh", "bash"))
        self.assertGreater(len(found), 20)
        for page, text in found:
            with self.subTest(page=page, text=text):
                done = subprocess.run(
                    ["bash", "-n"], input=text, capture_output=True, text=True, check=False
                )
                self.assertEqual(done.returncode, 0, done.stderr)


class Commands(unittest.TestCase):
    """What pages tell to type exists, with its options."""

    def help_of(self, *words: str) -> str:
        done = subprocess.run(
            [binary(words[0]), *words[1:], "--help"], capture_output=True, text=True, check=False
        )
        # Without a command of that name it is the program's own.
        unknown = len(words) > 1 and done.stdout == self.help_of(words[0])
        return "" if done.returncode != 0 or unknown else done.stdout

    def lines(self) -> Iterator[tuple[str, str]]:
        for page in pages():
            text = page.read_text()
            for language, block in BLOCK.findall(text):
                if language in ("", "sh", "bash"):
                    for line in block.replace("\\\n", " ").splitlines():
                        yield str(page.relative_to(ROOT)), line
            said = messages(page)
            for span in CODE.findall(FENCE.sub("", text)):
                if span.strip("`") not in said:
                    yield str(page.relative_to(ROOT)), span.strip("`")

    def test_every_command_exists_with_its_options(self) -> None:
        helps: dict[tuple[str, ...], str] = {}
        checked = 0
        for page, line in self.lines():
            for found in COMMAND.finditer(line):
                program, rest = found.groups()
                words = re.sub(r"[\[\],]", " ", rest).split()
                command = (program,)
                if program == "staithe" and words and re.fullmatch("[a-z-]+", words[0]):
                    command = (program, words[0])
                if command not in helps:
                    helps[command] = self.help_of(*command)
                checked += 1
                with self.subTest(page=page, command=line):
                    self.assertTrue(helps[command], "there is no such command")
                    for word in words:
                        if option := re.match("--[a-z-]+", word):
                            known = option.group() in helps[command]
                            self.assertTrue(known, f"it has no option {option.group()}")
        self.assertGreater(checked, 60)


class Troubleshooting(unittest.TestCase):
    def test_every_message_is_one_of_ours(self) -> None:
        said = sentences()
        found = messages(ROOT / "docs/troubleshooting.md")
        self.assertGreater(len(found), 150)
        for message in found:
            with self.subTest(message=message):
                parts = [part.strip() for part in message.split(GAP)]
                parts = [part for part in parts if len(part) > 2]
                self.assertTrue(parts)
                says_all = any(
                    all(any(part in string for string in strings) for part in parts)
                    for strings in said.values()
                )
                self.assertTrue(says_all, "no source has all of it")

    def test_no_message_stands_there_twice(self) -> None:
        found = messages(ROOT / "docs/troubleshooting.md")
        self.assertEqual(sorted(found), sorted(set(found)))


if __name__ == "__main__":
    unittest.main()
