"""Ctrl-C in a real terminal: the whole foreground group gets it, and so does the server alone."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from waiting import PATIENCE, wait_until

from .conftest import START_SECONDS, ServerProcess
from .test_process import running_answer

pytestmark = pytest.mark.engine

ROOT = Path(__file__).parents[2]
CTRL_C = b"\x03"
PONDER = [sys.executable, "-m", "ponder.cli.main", "serve", "--port", "0", "--state", ":memory:"]
OPTIONS = "--state :memory: --drain-timeout 600"
MAKE = ["make", "--no-print-directory", "serve", "PORT=0", f"ARGS={OPTIONS}"]


class Terminal:
    """A command with a terminal of its own, whose foreground group it leads."""

    def __init__(self, command: list[str]) -> None:
        self._keyboard, theirs = pty.openpty()
        own = ["setsid", "--ctty", *command]
        self.process = subprocess.Popen(own, cwd=ROOT, stdin=theirs, stdout=theirs, stderr=theirs)
        os.close(theirs)
        self._shown = bytearray()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        while True:
            try:
                part = os.read(self._keyboard, 4096)
            except OSError:  # the last program that had it is gone
                return
            self._shown += part

    def press(self, keys: bytes) -> None:
        os.write(self._keyboard, keys)

    def shows(self, pattern: str, seconds: float = START_SECONDS) -> str:
        """What the first group matches, once the screen shows it."""
        found: list[re.Match[str]] = []

        def shown() -> bool:
            found[:] = re.finditer(pattern, self.screen)
            assert found or self.process.poll() is None, self.screen
            return bool(found)

        wait_until(shown, seconds)
        return found[0][1] if found[0].groups() else found[0][0]

    @property
    def screen(self) -> str:
        return self._shown.decode(errors="replace").replace("\r\n", "\n")

    def ends(self) -> int:
        status = self.process.wait(PATIENCE)
        self._reader.join(30)
        return status

    def close(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        self._reader.join(30)
        os.close(self._keyboard)


@pytest.fixture
def terminal() -> Iterator[Callable[[list[str]], Terminal]]:
    opened: list[Terminal] = []

    def start(command: list[str]) -> Terminal:
        opened.append(Terminal(command))
        return opened[-1]

    yield start
    for it in opened:
        it.close()


def last_line(terminal: Terminal) -> str:
    return [line for line in terminal.screen.splitlines() if line.strip()][-1]


def test_ctrl_c_lets_answers_finish_under_make_too(
    terminal: Callable[[list[str]], Terminal],
) -> None:
    it = terminal(MAKE)
    url = it.shows(r"serving .* at (http://\S+)")
    tree = psutil.Process(it.process.pid).children(recursive=True)
    (ponder,) = [child for child in [psutil.Process(it.process.pid), *tree] if serves(child)]
    server = ServerProcess(it.process, Path(os.devnull), url)
    assert os.getpgid(server.engine().pid) != os.getpgid(ponder.pid)
    with running_answer(server) as answer:
        it.press(CTRL_C)
        it.shows("ponder: draining: running answers .1. .* a second signal .Ctrl-C. cuts them")
        assert httpx.get(f"{url}/readyz").text == "draining\n"
        server.engine().resume()
        assert "data: [DONE]" in answer.result().text
    ponder.wait(PATIENCE)
    it.ends()
    assert last_line(it).endswith(" ponder: stopped")
    for word in ("Traceback", "leaked", "Error", "Interrupt", "Warning"):
        assert word not in it.screen


def serves(process: psutil.Process) -> bool:
    words = process.cmdline()
    return "serve" in words and not words[0].endswith(("make", "sh")) and "VLLM" not in words[0]


def test_ctrl_c_ends_a_load_at_once(terminal: Callable[[list[str]], Terminal]) -> None:
    it = terminal(PONDER)
    it.shows("starting vLLM")
    it.press(CTRL_C)
    assert it.ends() == 128 + signal.SIGINT
    assert last_line(it).endswith(" ponder: stopped")
    for word in ("Traceback", "leaked", "Error", "serving", "Warning"):
        assert word not in it.screen
