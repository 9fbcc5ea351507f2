"""The deployment is checked by the tools that operators use on it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"


def run(*command: str | Path, cwd: Path = ROOT, stdin: str = "") -> str:
    """What a tool prints on stdout; fails with all that it said when it complains."""
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{command} in {cwd}:\n{done.stdout}\n{done.stderr}"
    return done.stdout


def installed(tool: str) -> Path:
    """A tool that the extra `deploy` puts beside python."""
    return Path(sys.executable).parent / tool


@pytest.fixture(scope="session")
def promtool(program: Callable[[str], Path]) -> Callable[..., str]:
    """Run promtool with arguments."""
    found = program("promtool")
    return lambda *arguments, **more: run(found, *arguments, **more)
