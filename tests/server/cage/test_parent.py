"""Processes that end with the one that started them, even when that is killed."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from killing import kill_parent
from waiting import PATIENCE

SCRIPT = """
import os, signal, subprocess, sys
from functools import partial
from ponder.cage.parent import die_with

parent = os.getpid() if sys.argv[1] == "ours" else 1
child = subprocess.Popen(
    [sys.executable, "-c", "import signal; print('here', flush=True); signal.pause()"],
    stdout=subprocess.PIPE,
    preexec_fn=partial(die_with, parent, signal.SIGTERM),
)
print(child.pid, child.stdout.readline(), flush=True)
child.wait()
"""


@pytest.fixture
def parent() -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-c", SCRIPT, "ours"], stdout=subprocess.PIPE, text=True
    ) as process:
        yield process
        process.kill()


def test_a_killed_parent_takes_its_child_with_it(parent: subprocess.Popen[str]) -> None:
    assert parent.stdout is not None
    child = psutil.Process(int(parent.stdout.readline().split()[0]))
    parent.kill()
    child.wait(PATIENCE)


def test_a_child_whose_parent_is_gone_already_does_not_begin() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", SCRIPT, "another's"], capture_output=True, text=True, check=False
    )
    assert "Exception occurred in preexec_fn" in ended.stderr
    assert "here" not in ended.stdout


def test_the_fleets_servers_end_with_their_script(tmp_path: Path) -> None:
    """`make serve-fleet` and `make demo` start their servers with `demo.process`."""
    script = (
        "import sys, time, demo\nfrom pathlib import Path\n"
        "with demo.process([sys.executable, '-c', 'import time; time.sleep(600)'], "
        f"Path({str(tmp_path)!r}, 'log')) as child:\n"
        "    print(child.pid, flush=True)\n    time.sleep(600)\n"
    )
    kill_parent(["-c", script])
