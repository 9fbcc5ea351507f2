"""The time before a server serves: shows progress, and leaves at once on a signal."""

from __future__ import annotations

import logging
import multiprocessing
import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from ponder.engine.output import Output
from ponder.server.logs import process_log

HEARTBEAT_SECONDS = 10.0


def stop_signals() -> list[signal.Signals]:
    """The signals that stop a server. Under `nohup` hangups are ignored, and stay ignored."""
    hangs_up = signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN
    return [signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hangs_up else [])]


class Start:
    """A directory for the files of the start and for the engine's sockets.

    A file in it keeps all output of the start, from libraries here and from the engine's process.
    """

    def __init__(self) -> None:
        self._scratch = Path(tempfile.mkdtemp(prefix="ponder-"))
        os.environ.setdefault("VLLM_RPC_BASE_PATH", str(self._scratch))
        wanted = "VLLM_LOGGING_LEVEL" in os.environ  # the operator wants to see vLLM's output
        self.output = Output(self._scratch / "start.log", live=wanted)
        for number in stop_signals():
            signal.signal(number, self._leave)

    @contextmanager
    def heartbeat(self, doing: str) -> Iterator[None]:
        """Log now and then for how long the server has been `doing` something."""
        over, started = threading.Event(), time.monotonic()

        def beat() -> None:
            while not over.wait(HEARTBEAT_SECONDS):
                passed = f"{doing} … {time.monotonic() - started:.0f} s"
                process_log.info("%s", f"{passed} {self.output.progress}".rstrip())

        thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def succeeded(self) -> None:
        """From now on, log the output."""
        self.output.loaded()
        self.output.file.unlink()
        logging.captureWarnings(True)

    def failed(self) -> str:
        """Return the output so far; it stays in `output.file`."""
        return self.output.text()

    def clean(self) -> None:
        """Remove the files of the start."""
        self.output.release()
        shutil.rmtree(self._scratch, ignore_errors=True)

    def _leave(self, number: int, _frame: FrameType | None) -> None:
        """Exit at once: no request needs finishing, and a library may swallow an exception."""
        for child in multiprocessing.active_children():
            child.kill()
        self.clean()
        process_log.info("stopped")
        os._exit(128 + number)
