"""`ponder`: commands are found, run and explained."""

from __future__ import annotations

import os
import subprocess
import sys
import types
from collections.abc import Callable
from importlib import metadata

import pytest
from pydantic import BaseModel, Field

from ponder.cli import main as cli
from ponder.cli.main import Command, main

MODULE = "ponder.cli.a_command_for_tests"
Install = Callable[[Callable[["Options"], int]], None]


class Options(BaseModel):
    """Count."""

    number: int = Field(0, ge=0, description="a number")


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Install:
    """Gives `ponder count` a body."""

    def install(run: Callable[[Options], int]) -> None:
        module = types.ModuleType(MODULE)
        vars(module).update(Options=Options, run=run)
        monkeypatch.setitem(sys.modules, MODULE, module)
        monkeypatch.setitem(cli.COMMANDS, "count", Command(MODULE, "count", "'ponder[extra]'"))

    return install


@pytest.mark.parametrize("argv", [[], ["-h"], ["--help"]])
def test_help_lists_the_commands(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(argv) == 0
    out = capsys.readouterr().out
    for name, it in cli.COMMANDS.items():
        assert f"  {name}" in out
        assert it.help in out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"ponder {metadata.version('ponder')}\n"


def test_an_unknown_command_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sreve"]) == 2
    assert capsys.readouterr().err == "ponder: sreve is not a command: did you mean serve?\n"
    assert main(["zebra"]) == 2
    assert capsys.readouterr().err == "ponder: zebra is not a command: see ponder --help\n"


def test_the_exit_status_is_the_commands(command: Install) -> None:
    command(lambda options: options.number)
    assert main(["count", "--number", "7"]) == 7


def test_a_mistake_is_status_2_without_a_traceback(
    command: Install, capsys: pytest.CaptureFixture[str]
) -> None:
    command(lambda options: options.number)
    assert main(["count", "--number", "-1"]) == 2
    told = "ponder count: --number must be greater than or equal to 0, not -1\n"
    assert capsys.readouterr().err == told


def test_help_of_a_command(command: Install, capsys: pytest.CaptureFixture[str]) -> None:
    command(lambda options: options.number)
    assert main(["count", "--help"]) == 0
    assert capsys.readouterr().out.startswith("usage: ponder count [options]\n\nCount.\n")


def test_ctrl_c_is_status_130(command: Install, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(_: Options) -> int:
        raise KeyboardInterrupt

    command(interrupted)
    assert main(["count"]) == 130
    assert capsys.readouterr().err == ""


def test_a_missing_library_names_the_extra(
    command: Install, capsys: pytest.CaptureFixture[str]
) -> None:
    def needs(_: Options) -> int:
        raise ModuleNotFoundError("No module named 'vllm.engine'", name="vllm.engine")

    command(needs)
    assert main(["count"]) == 1
    told = "ponder count: needs vllm.engine, which is missing: pip install 'ponder[extra]'\n"
    assert capsys.readouterr().err == told


def test_a_missing_part_of_ponder_is_not_blamed_on_an_extra(command: Install) -> None:
    def broken(_: Options) -> int:
        raise ModuleNotFoundError("No module named 'ponder.nowhere'", name="ponder.nowhere")

    command(broken)
    with pytest.raises(ModuleNotFoundError):
        main(["count"])


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_explains_itself(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([name, "--help"]) == 0
    assert capsys.readouterr().out.startswith(f"usage: ponder {name} ")


@pytest.mark.parametrize("length", [1, 200_000])  # in Python's buffer until the end, and not
def test_a_closed_pipe_is_no_traceback(length: int) -> None:
    code = (
        "import sys, types; from ponder.cli import main as cli; m = types.ModuleType('m')\n"
        "from pydantic import BaseModel\n"
        "m.Options = type('Options', (BaseModel,), {})\n"
        f"m.run = lambda _: print('x' * {length}) or 0\n"
        "sys.modules['m'] = m; cli.COMMANDS['m'] = cli.Command('m', '')\n"
        "sys.exit(cli.main(['m']))"
    )
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-c", code], stdout=writer, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, "")


@pytest.mark.parametrize("argv", ["--version", "train --list"])
def test_a_full_disk_is_no_traceback(argv: str) -> None:
    command = f"{sys.executable} -m ponder.cli.main {argv} > /dev/full"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert (
        done.stderr == "ponder: cannot write the output: No space left on device: free some space\n"
    )


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_a_closed_stream_is_no_traceback_and_not_the_others(closed: str) -> None:
    for argv, status in (("--version", 0), ("zebra", 2), ("models --url http://127.0.0.1:9", 1)):
        command = f"{sys.executable} -m ponder.cli.main {argv} {closed}"
        done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
        assert done.returncode == status, done.stderr
        assert ("ponder" in done.stdout) == (status == 0 and ">&-" not in closed.split())
        assert ("ponder" in done.stderr) == (status != 0 and "2>&-" not in closed)
        assert "Traceback" not in done.stderr


def test_the_version_is_said_before_anything_is_loaded() -> None:
    code = (
        "import sys; from ponder.cli.main import main; main(['--version'])\n"
        "heavy = ('pydantic', 'httpx', 'rich', 'prompt_toolkit', 'shtab')\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_chat_loads_its_prompt_when_it_asks() -> None:
    code = "import sys, ponder.cli.chat; print('prompt_toolkit' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
