"""The engine's process: it dies with the server, and what a terminal signals does not reach it.

vLLM leaves its process in the terminal's process group, where Ctrl-C ends it under the requests
that the server still drains, and nothing ends it when the server is killed.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
from multiprocessing import resource_tracker
from multiprocessing.context import ForkContext, ForkProcess, SpawnContext, SpawnProcess
from multiprocessing.process import BaseProcess
from typing import ClassVar

_PR_SET_PDEATHSIG = 1
_OF_TERMINALS = {signal.SIGINT, signal.SIGHUP}


class _Engine(BaseProcess):
    """A process in a session of its own that the kernel kills when its parent is gone.

    The parent is the thread that starts it (see prctl(2)): start it in the main thread.
    """

    blocked: ClassVar = _OF_TERMINALS
    """Signals that wait while it begins."""

    def start(self) -> None:
        # Blocked signals stay blocked over fork and exec: Ctrl-C is nothing to a process that is
        # still importing either.
        resource_tracker.ensure_running()  # it unblocks SIGINT when it begins
        before = signal.pthread_sigmask(signal.SIG_BLOCK, self.blocked)
        try:
            super().start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def run(self) -> None:
        _die_with(self._parent_pid)  # type: ignore[attr-defined]
        os.setsid()
        _use_no_semaphore()
        super().run()


class _Spawned(_Engine, SpawnProcess):
    pass


class _Forked(_Engine, ForkProcess):
    blocked: ClassVar = {*_OF_TERMINALS, signal.SIGTERM}  # the server's own handler is no engine's

    def run(self) -> None:
        signal.set_wakeup_fd(-1)  # of the server's event loop
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
        super().run()


class SpawnedEngines(SpawnContext):
    """`multiprocessing`, as far as it starts engines: each imports everything again."""

    Process = _Spawned


class ForkedEngines(ForkContext):
    """The same for engines that share what is imported already: half the time of a start.

    Only where nothing that a fork leaves behind is waited for: no thread of a pool that computes,
    no device.
    """

    Process = _Forked


def _die_with(parent: int) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    if os.getppid() != parent:  # it died before we asked
        sys.exit("the server is gone")


def _use_no_semaphore() -> None:
    """A progress bar takes a named semaphore to itself, which a killed process leaves behind."""
    from tqdm import tqdm

    tqdm.set_lock(threading.RLock())
