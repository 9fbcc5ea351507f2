"""A cell: a forked process that computes some results and can do nothing else.

A cell has the modules that its parent has loaded, so that it costs a fork instead of a start, and
its effects end with it. Three independent layers confine it:

- kernel limits: processor time, its parent's memory, no file may grow, it dies with its parent;
- a seccomp filter: it may read, compute and write its results (`seccomp`);
- an audit hook of Python: no code from text, no writing, sockets, processes or signals.

The parent measures the time, and leaves the network before it forks (`leave_network`).
"""

from __future__ import annotations

import ctypes
import gc
import math
import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any

from . import seccomp
from .parent import die_with

LONGEST_RESULT = 4096  # bytes
_END = b"\n"
_PART = 65_536
_DESCRIPTORS = 1024
_NEW_IPC, _NEW_USER, _NEW_NET = 0x08000000, 0x10000000, 0x40000000

# Refused audit events, by prefix: https://docs.python.org/3/library/audit_events.html
_REFUSED = (
    "socket.", "subprocess.", "ctypes.", "mmap.", "fcntl.", "shutil.", "tempfile.", "signal.",
    "os.system", "os.exec", "os.fork", "os.posix_spawn", "os.spawn", "os.startfile", "os.kill",
    "os.putenv", "os.unsetenv", "os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.link",
    "os.symlink", "os.truncate", "os.chmod", "os.chown", "os.chflags", "os.lockf", "os.utime",
    "os.setxattr", "os.removexattr", "os.chdir", "pty.", "resource.", "syslog.", "code.__new__",
    "function.__new__", "pickle.find_class", "sys.settrace", "sys.setprofile",
    "sys._current_frames",
    "gc.", "cpython.run_", "_thread.start_new_thread",
)  # fmt: skip
_CHANGES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND

_libc = ctypes.CDLL(None)


@dataclass(frozen=True, slots=True)
class Ended:
    """The results of a cell and how it ended: `status` is the exit code, negative for a signal."""

    results: list[bytes]
    status: int
    overdue: bool


def run(
    work: Callable[[], Iterable[bytes]], most: int, time_limit_s: float, keeper: Connection
) -> Ended:
    """Run `work` in a new cell; returns at most `most` of its results.

    The time limit holds for each result. Raises `EOFError` if the other end of `keeper` is gone;
    nothing else may come over that connection meanwhile.
    """
    reader, writer = os.pipe()
    seccomp.program(writer)  # made before the fork, once for all cells
    parent = os.getpid()
    pid = os.fork()
    if not pid:
        _live(parent, work, writer, math.ceil(time_limit_s * most) + 1)
    os.close(writer)
    results: list[bytes] = []
    unread, overdue = b"", False
    until = time.monotonic() + time_limit_s
    try:
        while True:
            ready = wait([reader, keeper], max(0.0, until - time.monotonic()))
            if keeper in ready:
                raise EOFError
            if not ready:
                overdue = True
                break
            part = os.read(reader, _PART)
            *whole, unread = (unread + part).split(_END)
            results += whole
            if whole:
                until = time.monotonic() + time_limit_s
            if not part or len(unread) > LONGEST_RESULT or len(results) > most:
                break
    finally:
        os.close(reader)
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)  # a cell that has ended keeps its status
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return Ended(results[:most], status, overdue or -status == signal.SIGXCPU)


def leave_network() -> None:
    """Move into a network without interfaces, if the kernel lets this user."""
    if _libc.unshare(_NEW_NET | _NEW_IPC):
        _libc.unshare(_NEW_USER | _NEW_NET | _NEW_IPC)


_filter = seccomp.install


def filtered() -> bool:
    """Whether cells can have their seccomp filter here; found by trying."""
    if not (pid := os.fork()):
        os._exit(not seccomp.install(2))
    return not os.waitpid(pid, 0)[1]


def _live(parent: int, work: Callable[[], Iterable[bytes]], output: int, seconds: int) -> None:
    status = 1
    try:
        gc.disable()
        os.closerange(3, output)
        os.closerange(output + 1, _DESCRIPTORS)
        die_with(parent)
        _lock(output, seconds)
        for result in work():
            os.write(output, result[:LONGEST_RESULT].replace(_END, b" ") + _END)
        status = 0
    finally:
        os._exit(status)


def _lock(output: int, seconds: int) -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
    for kind in (resource.RLIMIT_FSIZE, resource.RLIMIT_NPROC):
        resource.setrlimit(kind, (0, 0))
    _filter(output)
    sys.addaudithook(_refuse)


def _refuse(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "exec":
        refused = not _is_module(getattr(arguments[0], "co_filename", ""))
    elif event == "open":
        refused = bool(arguments[2] & _CHANGES)
    else:
        refused = event.startswith(_REFUSED)
    if refused:
        raise PermissionError(f"a judge may not do this: {event}")


def _is_module(file: str) -> bool:
    """Whether a file name is a module's: what a judge compiles from text seldom has one."""
    return file.startswith("<frozen ") or os.path.isfile(file)  # noqa: PTH113 - pathlib imports
