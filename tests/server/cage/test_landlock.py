"""What a process in a domain of its own can still do to others, and to what it started."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from ponder.cage import landlock
from ponder.cage.child import Child


def look(connection: Connection, version: int, folder: str) -> None:
    """Says whether it has a domain now, and what that allows: a list of names."""
    entered = landlock.leave_others(version)
    ours = subprocess.Popen(["sleep", "60"])
    Path(folder, "a").mkdir()
    Path(folder, "b").mkdir()
    Path(folder, "a", "file").touch()
    parent = os.getppid()
    tries: dict[str, Callable[[], object]] = {
        "environment": lambda: Path(f"/proc/{parent}/environ").read_bytes(),
        "memory": lambda: Path(f"/proc/{parent}/mem").open("rb").close(),
        "signal": lambda: os.kill(parent, 0),
        "own environment": lambda: Path("/proc/self/environ").read_bytes(),
        "child's environment": lambda: Path(f"/proc/{ours.pid}/environ").read_bytes(),
        "move": lambda: Path(folder, "a", "file").rename(Path(folder, "b", "file")),
        "child's end": ours.kill,
    }
    allowed = []
    for name, attempt in tries.items():
        try:
            attempt()
        except OSError:
            continue
        allowed.append(name)
    ours.kill()
    ours.wait()
    connection.send_bytes(json.dumps([entered, allowed]).encode())


OWN = ["own environment", "child's environment"]


@pytest.mark.parametrize(
    ("version", "allowed"),
    [
        (1, ["signal", *OWN, "child's end"]),
        (2, ["signal", *OWN, "move", "child's end"]),
        (6, [*OWN, "move", "child's end"]),
    ],
)
def test_others_are_out_of_reach(version: int, allowed: list[str], tmp_path: Path) -> None:
    if version > landlock.version():
        pytest.skip(f"this kernel has version {landlock.version()} of Landlock")
    child = Child(f"{__name__}:look", version, str(tmp_path))
    try:
        assert json.loads(child.receive(60) or b"") == [True, allowed]
    finally:
        child.kill()


def test_a_kernel_without_landlock_is_told_by_its_version(monkeypatch: pytest.MonkeyPatch) -> None:
    class Lacking:
        def syscall(self, *_: object) -> int:
            return -1

    monkeypatch.setattr(landlock, "_libc", Lacking())
    assert landlock.version() == 0
    assert not landlock.leave_others(0)
