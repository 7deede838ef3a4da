#!/usr/bin/python3
"""Completions in the real shells: commands, options, fixed words, and the names that a daemon
knows; without a daemon nothing, and no wait."""

from __future__ import annotations

import os
import pty
import select
import shutil
import subprocess
import tempfile
import time
import unittest
from pathlib import Path

from lab import Lab
from staithed import binary

IMAGE = "contoso.azurecr.io/busybox:1"
COMMANDS = {"status", "explain", "ls", "warm", "pin", "unpin", "purge", "verify", "renew", "reload",
            "doctor", "token", "config", "completion", "version"}  # fmt: skip

BASH = """
source {script}
COMP_LINE={line!r}
COMP_POINT=${{#COMP_LINE}}
COMP_WORDS=(unused)
_staithe
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


class Shells(unittest.TestCase):
    lab: Lab

    @classmethod
    def setUpClass(cls) -> None:
        cls.lab = Lab()
        cls.addClassCleanup(cls.lab.close)
        cls.staithed = cls.lab.staithed.start()
        cls.staithed.get("/v2/contoso.azurecr.io/busybox/manifests/1")
        cls.directory = Path(tempfile.mkdtemp(prefix="staithe-shells-"))
        cls.addClassCleanup(shutil.rmtree, cls.directory)
        cls.environment = {
            "PATH": f"{binary('staithe').parent}:/usr/bin:/bin",
            "HOME": str(cls.directory), "TERM": "dumb", "LC_ALL": "C.UTF-8",
            "STAITHE_SOCKET": str(cls.staithed.socket),
        }  # fmt: skip
        cls.scripts = {}
        for shell in ("bash", "zsh", "fish"):
            script = cls.directory / f"staithe.{shell}"
            script.write_text(cls.run_program("completion", shell))
            cls.scripts[shell] = script

    @classmethod
    def run_program(cls, *words: str, **environment: str) -> str:
        return subprocess.run([binary("staithe"), *words], text=True, capture_output=True,
                              check=True, env={**cls.environment, **environment}).stdout  # fmt: skip

    # What each shell offers for a line that ends where the cursor is.

    def bash(self, line: str) -> set[str]:
        text = BASH.format(script=self.scripts["bash"], line=line)
        done = subprocess.run(["bash", "--norc", "-c", text], text=True, capture_output=True,
                              check=True, env=self.environment)  # fmt: skip
        self.assertEqual(done.stderr, "")
        return set(done.stdout.split())

    def fish(self, line: str) -> set[str]:
        text = f"source {self.scripts['fish']}; complete -C {line!r}"
        done = subprocess.run(["fish", "--no-config", "-c", text], text=True, capture_output=True,
                              check=True, env=self.environment)  # fmt: skip
        self.assertEqual(done.stderr, "")
        return {one.split("\t")[0] for one in done.stdout.splitlines()}

    def zsh(self, line: str) -> set[str]:
        """What a terminal shows of it: the list, or the line with the only word that fits."""
        rc = self.directory / ".zshrc"
        rc.write_text(
            "autoload -Uz compinit && compinit -D -u\n"
            f"source {self.scripts['zsh']}\n"
            "PS1='ready> '\nLISTMAX=10000\nsetopt NO_BEEP NO_ALWAYS_LAST_PROMPT AUTO_LIST\n"
            "zstyle ':completion:*' list-separator ''\n"
        )
        environment = {**self.environment, "ZDOTDIR": str(self.directory), "COLUMNS": "200"}
        pid, terminal = pty.fork()
        if pid == 0:
            os.execve("/usr/bin/zsh", ["zsh", "-i"], environment)
        try:
            self.read_until(terminal, "ready> ")
            os.write(terminal, (line + "\t\x05#end").encode())
            text = self.read_until(terminal, "#end")
        finally:
            os.close(terminal)
            os.waitpid(pid, 0)
        return set(text.replace("#end", " ").split())

    def read_until(self, terminal: int, mark: str) -> str:
        text = ""
        deadline = time.monotonic() + 20
        while mark not in text:
            ready, _, _ = select.select([terminal], [], [], max(0, deadline - time.monotonic()))
            self.assertTrue(ready, f"no {mark!r} in {text!r}")
            text += os.read(terminal, 65536).decode(errors="replace")
        return text

    def offered(self, line: str) -> dict[str, set[str]]:
        return {shell: getattr(self, shell)(line) for shell in ("bash", "fish", "zsh")}

    def test_commands(self) -> None:
        for shell, words in self.offered("staithe ").items():
            self.assertLessEqual(COMMANDS, words, shell)

    def test_the_only_command_that_fits(self) -> None:
        self.assertEqual(self.bash("staithe expl"), {"explain"})
        self.assertEqual(self.fish("staithe expl"), {"explain"})
        self.assertIn("explain", self.zsh("staithe expl"))

    def test_options_of_a_command(self) -> None:
        for shell, words in self.offered("staithe purge --").items():
            self.assertLessEqual({"--all", "--older-than", "--json"},
                                 {word.rstrip("=") for word in words}, shell)  # fmt: skip

    def test_fixed_words(self) -> None:
        for shell, words in self.offered("staithe completion ").items():
            self.assertLessEqual({"bash", "zsh", "fish"}, words, shell)
        for shell, words in self.offered("staithe warm --platform ").items():
            self.assertLessEqual({"all", "linux/amd64", "linux/arm64"}, words, shell)

    def test_names_of_images_and_registries(self) -> None:
        self.assertEqual(self.fish("staithe explain cont"), {IMAGE})
        # zsh writes a colon that is no separator as "\\:".
        shown = {word.replace("\\", "") for word in self.zsh("staithe explain cont")}
        self.assertIn(IMAGE, shown)
        self.assertEqual(self.bash("staithe explain cont"), {IMAGE})
        # Behind a colon, where bash replaces only what follows it.
        self.assertEqual(self.bash("staithe pin contoso.azurecr.io/busybox:"), {"1"})
        for shell, words in self.offered("staithe renew ").items():
            self.assertLessEqual({"contoso.azurecr.io", "docker.io"}, words, shell)

    def test_the_socket_on_the_line_is_the_one_that_is_asked(self) -> None:
        line = f"staithe --socket {self.staithed.socket} explain cont"
        kept = self.environment
        self.environment = {**kept, "STAITHE_SOCKET": "/nonexistent"}
        try:
            self.assertEqual(self.bash("staithe explain "), set())
            self.assertEqual(self.bash(line), {IMAGE})
            self.assertEqual(self.fish(line), {IMAGE})
        finally:
            self.environment = kept

    def test_without_a_daemon_nothing_is_said(self) -> None:
        for what in ("images", "registries"):
            self.assertEqual(self.run_program("completion", what, STAITHE_SOCKET="/nonexistent"), "")


if __name__ == "__main__":
    unittest.main()
