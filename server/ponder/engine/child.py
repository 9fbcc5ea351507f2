"""The engine's process: it dies with the server, and signals of a terminal do not reach it.

vLLM leaves its process in the terminal's process group: Ctrl-C ends it while the server still
drains requests, and nothing ends it when the server is killed.
"""

from __future__ import annotations

import os
import signal
import threading
from multiprocessing import resource_tracker
from multiprocessing.context import ForkContext, ForkProcess, SpawnContext, SpawnProcess
from multiprocessing.process import BaseProcess
from typing import ClassVar

from ponder.cage.parent import die_with

_OF_TERMINALS = {signal.SIGINT, signal.SIGHUP}


class _Engine(BaseProcess):
    """A process in a session of its own that the kernel kills when its parent is gone.

    The parent is the thread that starts it (see prctl(2)): start it in the main thread.
    """

    blocked: ClassVar = _OF_TERMINALS
    """Signals that are blocked while it starts."""

    def start(self) -> None:
        # Blocked signals stay blocked over fork and exec: Ctrl-C does not reach a process that is
        # still importing, either.
        resource_tracker.ensure_running()  # it unblocks SIGINT when it begins
        before = signal.pthread_sigmask(signal.SIG_BLOCK, self.blocked)
        try:
            super().start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def run(self) -> None:
        die_with(self._parent_pid)  # type: ignore[attr-defined]
        os.setsid()
        _use_no_semaphore()
        super().run()


class _Spawned(_Engine, SpawnProcess):
    pass


class _Forked(_Engine, ForkProcess):
    blocked: ClassVar = {*_OF_TERMINALS, signal.SIGTERM}  # the server's handler must not run here

    def run(self) -> None:
        signal.set_wakeup_fd(-1)  # of the server's event loop
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
        super().run()


class SpawnedEngines(SpawnContext):
    """A `multiprocessing` context that starts engines anew: each imports everything again."""

    Process = _Spawned


class ForkedEngines(ForkContext):
    """A context that forks engines, which share the imported modules: half the time of a start.

    Only for a process without a pool of computing threads and without a device: a fork has neither,
    and would wait for them.
    """

    Process = _Forked


def _use_no_semaphore() -> None:
    """Give progress bars a plain lock: a killed process would leave their semaphore behind."""
    from tqdm import tqdm

    tqdm.set_lock(threading.RLock())
