"""The processors and memory that this process may use: less than the machine's in a container."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")


def processors(cgroups: Path = CGROUPS, membership: Path = MEMBERSHIP) -> int:
    """The number of processors that it may run on, at most the whole ones in its quota."""
    most = len(os.sched_getaffinity(0))
    for group in _groups("cpu", cgroups, membership):
        old = _words(group / "cpu.cfs_quota_us") + _words(group / "cpu.cfs_period_us")
        for words in (_words(group / "cpu.max"), old):
            if len(words) == 2 and words[0].isdigit():
                most = min(most, int(words[0]) // int(words[1]))
    return max(1, most)


def memory(cgroups: Path = CGROUPS, membership: Path = MEMBERSHIP) -> int:
    """The bytes of memory that it may use."""
    most = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for group in _groups("memory", cgroups, membership):
        for words in (_words(group / "memory.max"), _words(group / "memory.limit_in_bytes")):
            if words and words[0].isdigit():
                most = min(most, int(words[0]))
    return most


def _groups(controller: str, cgroups: Path, membership: Path) -> Iterator[Path]:
    """The process's cgroup and all that contain it: the limits of all of them hold.

    A container may find its group at the root of the mount, whatever the host calls it. Version 1
    has a mount for each controller.
    """
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            group = cgroups / path.lstrip("/")
        elif controller in controllers.split(","):
            group = cgroups / controller / path.lstrip("/")
        else:
            continue
        yield from (group, *group.parents)


def _words(path: Path) -> list[str]:
    """The words in a limit's file; none where there is no such limit."""
    try:
        return path.read_text().split()
    except OSError:
        return []
