"""What a process may use, by the limits of its control groups."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from ponder.engine import machine

MEMORY = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
V2 = "0::/pods/ponder\n"
V1 = "4:memory:/docker/abc\n1:cpu,cpuacct:/docker/abc\n0::/\n"


@pytest.fixture(autouse=True)
def eight_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _process: set(range(8)))


def limited(folder: Path, membership: str, files: Mapping[str, str]) -> tuple[int, int]:
    """What processors and memory are under these limits."""
    (folder / "cgroup").write_text(membership)
    for name, text in files.items():
        path = folder / "mount" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    places = (folder / "mount", folder / "cgroup")
    return machine.processors(*places), machine.memory(*places)


@pytest.mark.parametrize(
    ("membership", "files", "expected"),
    [
        (V2, {}, (8, MEMORY)),
        (
            V2,
            {"pods/ponder/cpu.max": "max 100000\n", "pods/ponder/memory.max": "max\n"},
            (8, MEMORY),
        ),
        (V2, {"pods/ponder/cpu.max": "250000 100000\n"}, (2, MEMORY)),
        (V2, {"pods/ponder/cpu.max": "50000 100000\n"}, (1, MEMORY)),
        (V2, {"pods/ponder/cpu.max": "6400000 100000\n"}, (8, MEMORY)),
        (V2, {"pods/ponder/memory.max": "1048576\n"}, (8, 1 << 20)),
        # The smaller limit of a group around ours.
        (
            V2,
            {
                "pods/cpu.max": "300000 100000\n",
                "pods/ponder/cpu.max": "400000 100000\n",
                "pods/memory.max": "4096\n",
                "pods/ponder/memory.max": "8192\n",
            },
            (3, 4096),
        ),
        # A container's own group, at the root of the mount.
        (V2, {"cpu.max": "300000 100000\n", "memory.max": "8192\n"}, (3, 8192)),
        (
            V1,
            {
                "cpu/cpu.cfs_quota_us": "200000\n",
                "cpu/cpu.cfs_period_us": "100000\n",
                "memory/docker/abc/memory.limit_in_bytes": "8192\n",
            },
            (2, 8192),
        ),
        (
            V1,
            {
                "cpu/cpu.cfs_quota_us": "-1\n",
                "cpu/cpu.cfs_period_us": "100000\n",
                "memory/memory.limit_in_bytes": "9223372036854771712\n",
            },
            (8, MEMORY),
        ),
    ],
)
def test_the_smallest_limit_holds(
    tmp_path: Path, membership: str, files: dict[str, str], expected: tuple[int, int]
) -> None:
    assert limited(tmp_path, membership, files) == expected


def test_without_control_groups_the_machine_is_ours(tmp_path: Path) -> None:
    nowhere = tmp_path / "none"
    assert machine.processors(nowhere, nowhere) == 8
    assert machine.memory(nowhere, nowhere) == MEMORY


def test_this_machine_says_something() -> None:
    assert 1 <= machine.processors() <= 8
    assert 0 < machine.memory() <= MEMORY
