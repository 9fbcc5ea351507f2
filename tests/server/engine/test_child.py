"""The engine's process, with a sleeper in vLLM's place."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from waiting import PATIENCE

PARENT = """
import signal, sys, time
from ponder.engine import child as module

if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: print("a server's own handler", flush=True))
    child = getattr(module, sys.argv[1])().Process(target=time.sleep, args=(600,))
    child.start()
    print(child.pid, flush=True)
    if len(sys.argv) > 2:
        child.terminate()
    child.join()
"""


def started(parent: subprocess.Popen[str]) -> psutil.Process:
    """The child, once it has done what it does first."""
    assert parent.stdout is not None
    child = psutil.Process(int(parent.stdout.readline()))
    while os.getsid(child.pid) != child.pid:
        time.sleep(0.01)
    return child


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "parent.py"
    path.write_text(PARENT)
    return path


@pytest.fixture(params=["SpawnedEngines", "ForkedEngines"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def parent(script: Path, kind: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, str(script), kind]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        yield process
        process.kill()


def test_it_dies_with_a_parent_that_is_killed(parent: subprocess.Popen[str]) -> None:
    child = started(parent)
    parent.kill()
    child.wait(PATIENCE)


def test_it_dies_even_when_it_is_stopped(parent: subprocess.Popen[str]) -> None:
    child = started(parent)
    child.send_signal(signal.SIGSTOP)
    parent.kill()
    child.wait(PATIENCE)


def test_it_lives_in_a_session_of_its_own_and_takes_nothing_from_a_terminal(
    parent: subprocess.Popen[str],
) -> None:
    child = started(parent)
    assert os.getpgid(child.pid) == child.pid
    for number in (signal.SIGINT, signal.SIGHUP):
        child.send_signal(number)
    pending = dict(
        line.split(":\t", 1) for line in Path(f"/proc/{child.pid}/status").read_text().splitlines()
    )
    blocked = int(pending["SigBlk"], 16)
    assert all(blocked >> (number - 1) & 1 for number in (signal.SIGINT, signal.SIGHUP))
    child.terminate()
    assert parent.wait(PATIENCE) == 0


def test_it_can_be_told_to_end_before_it_has_begun(script: Path, kind: str) -> None:
    command = [sys.executable, script, kind, "at once"]
    ended = subprocess.run(command, timeout=PATIENCE, check=False)
    assert ended.returncode == 0
