"""The time before a server serves: signs of life, and leaving at once when it is told to."""

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
    """What asks a server to leave. `nohup` has hangups ignored, and they stay so."""
    hangs_up = signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN
    return [signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hangs_up else [])]


class Start:
    """A directory of its own for what the start writes, and for the engine's sockets.

    Whatever is printed meanwhile, by libraries here and in the engine's process, is kept in a file
    there.
    """

    def __init__(self) -> None:
        self._scratch = Path(tempfile.mkdtemp(prefix="ponder-"))
        os.environ.setdefault("VLLM_RPC_BASE_PATH", str(self._scratch))
        wanted = "VLLM_LOGGING_LEVEL" in os.environ  # then it is for the operator's eyes
        self.output = Output(self._scratch / "start.log", live=wanted)
        for number in stop_signals():
            signal.signal(number, self._leave)

    @contextmanager
    def heartbeat(self, doing: str) -> Iterator[None]:
        """Say now and then for how long we have been `doing` it."""
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
        """What is printed from now on is logged."""
        self.output.loaded()
        self.output.file.unlink()
        logging.captureWarnings(True)

    def failed(self) -> str:
        """What was printed; it stays in `output.file`."""
        return self.output.text()

    def clean(self) -> None:
        """Remove what the start wrote."""
        self.output.release()
        shutil.rmtree(self._scratch, ignore_errors=True)

    def _leave(self, number: int, _frame: FrameType | None) -> None:
        """Nothing is served that could be finished, and a library may hold up any exception."""
        for child in multiprocessing.active_children():
            child.kill()
        self.clean()
        process_log.info("stopped")
        os._exit(128 + number)
