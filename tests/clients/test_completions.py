"""The completion scripts, run by the shells that they are for."""

from __future__ import annotations

import os
import pty
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ponder.cli.main import COMMANDS, main

ASKED = {
    "ponder ": set(COMMANDS),
    "ponder comp": {"completions"},
    "ponder chat --t": {"--task", "--thoughts", "--temperature", "--top-p"},
    "ponder serve --log-format ": {"text", "json"},
    "ponder completions ": {"bash", "zsh", "fish"},
}


def shell(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is missing: apt-get install {name}")
    return found


@pytest.fixture
def script(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The script of the shell that the test names, in a file."""
    name = request.param
    shell(name)
    file = tmp_path / f"ponder.{name}"
    command = [sys.executable, "-m", "ponder.cli.main", "completions", name]
    done = subprocess.run(command, capture_output=True, check=True)
    assert done.stderr == b""
    file.write_bytes(done.stdout)
    return file


@pytest.mark.parametrize("script", ["bash"], indirect=True)
def test_bash_completes(script: Path) -> None:
    for line, candidates in ASKED.items():
        code = (
            f"source {script}; COMP_LINE='{line}'; read -ra COMP_WORDS <<< \"$COMP_LINE\"\n"
            '[[ $COMP_LINE == *" " ]] && COMP_WORDS+=("")\n'
            "COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); complete -p ponder >/dev/null || exit\n"
            '_shtab_ponder; printf "%s\\n" "${COMPREPLY[@]}"'
        )
        done = subprocess.run(
            [shell("bash"), "--norc", "-c", code], capture_output=True, text=True, check=True
        )
        assert set(done.stdout.split()) == candidates, line


@pytest.mark.parametrize("script", ["fish"], indirect=True)
def test_fish_completes(script: Path, tmp_path: Path) -> None:
    home = {**os.environ, "HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path)}
    for line, candidates in ASKED.items():
        code = f"source {script}; complete -C '{line}'"
        done = subprocess.run(
            [shell("fish"), "--no-config", "-c", code],
            env=home,
            capture_output=True,
            text=True,
            check=True,
        )
        words = {row.partition("\t")[0] for row in done.stdout.splitlines()}
        assert words == candidates, line


@pytest.mark.parametrize("script", ["zsh"], indirect=True)
def test_zsh_completes(script: Path) -> None:
    """In zsh a widget alone can complete, so one is pressed: Tab, then Enter."""
    script.rename(script.with_name("_ponder"))
    process, file = pty.fork()
    if process == 0:
        os.execve(shell("zsh"), ["zsh", "-f", "-i"], {**os.environ, "TERM": "dumb"})
    ready = f"fpath=({script.parent} $fpath); autoload -Uz compinit && compinit -u -D; echo is=$?\r"
    try:
        _say(file, ready, "is=0")
        # Else zsh takes a Tab that comes in one piece with the word before it for a pasted one.
        _say(file, "zstyle ':completion:*' insert-tab false; echo styled=$?\r", "styled=0")
        _say(file, 'ponder() { print -r -- "<$*>" }; echo defined=$?\r', "defined=0")
        _say(file, "ponder comp\tfi\t\r", "<completions fish>")
        _say(file, "ponder chat --tem\t", "--temperature")
    finally:
        os.kill(process, 9)
        os.waitpid(process, 0)
        os.close(file)


def _say(file: int, text: str, answer: str) -> None:
    os.write(file, text.encode())
    said, deadline = "", time.monotonic() + 60
    while answer not in said:
        assert time.monotonic() < deadline, said
        if select.select([file], [], [], 0.1)[0]:
            said += os.read(file, 1 << 16).decode(errors="replace")


def test_a_shell_that_is_not_known_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completions", "tcsh"]) == 2
    told = "ponder completions: SHELL must be 'bash', 'zsh' or 'fish', not tcsh\n"
    assert capsys.readouterr().err == told


def test_a_command_that_is_not_installed_is_completed_without_options(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "ponder.training.command", None)
    assert main(["completions", "bash"]) == 0
    out, err = capsys.readouterr()
    assert "the options of train need" in err
    assert "pip install 'ponder[train]'" in err
    assert " train " in out
