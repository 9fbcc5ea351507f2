"""Kills a process whose child should end with it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence

import psutil

from waiting import PATIENCE


def kill_parent(arguments: Sequence[object]) -> None:
    """Run Python until it prints the process id of its child, kill it, and wait for the child."""
    command = [sys.executable, *map(str, arguments)]
    path = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=path) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        parent.kill()
        child.wait(PATIENCE)
