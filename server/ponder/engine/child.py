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
from multiprocessing.context import SpawnContext, SpawnProcess

_PR_SET_PDEATHSIG = 1
_OF_TERMINALS = {signal.SIGINT, signal.SIGHUP}


class EngineProcess(SpawnProcess):
    """A process in a session of its own that the kernel kills when its parent is gone.

    The parent is the thread that starts it (see prctl(2)): start it in the main thread.
    """

    def start(self) -> None:
        # Blocked signals stay blocked over fork and exec: Ctrl-C is nothing to a process that is
        # still importing either.
        resource_tracker.ensure_running()  # it unblocks SIGINT when it begins
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _OF_TERMINALS)
        try:
            super().start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def run(self) -> None:
        _die_with(self._parent_pid)  # type: ignore[attr-defined]
        os.setsid()
        _use_no_semaphore()
        super().run()


class EngineContext(SpawnContext):
    """`multiprocessing`, as far as it starts engines."""

    Process = EngineProcess


def _die_with(parent: int) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    if os.getppid() != parent:  # it died before we asked
        sys.exit("the server is gone")


def _use_no_semaphore() -> None:
    """A progress bar takes a named semaphore to itself, which a killed process leaves behind."""
    from tqdm import tqdm

    tqdm.set_lock(threading.RLock())
