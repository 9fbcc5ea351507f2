"""The operator's own judge of answers, as a signal of quality beside the clients' feedback.

It runs in a process of its own: it cannot hold up the event loop, and one that hangs or crashes is
ended and started again.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
import multiprocessing
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)

Judge = Callable[[Sequence[Mapping[str, str]], str], float | None]
"""(messages as role and content, answer) → a score from 0 to 1, or None for no opinion."""

JUDGE_SECONDS = 10.0
START_SECONDS = 60.0
MAX_WAITING = 1000
REASONS = ("busy", "error", "invalid", "timeout")


class VerifierError(Exception):
    """The verifier cannot be loaded; the message says why."""


class VerifierFailure(Exception):
    """One answer got no score; `reason` is one of `REASONS`."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class Verifier:
    """Scores answers one at a time with the callable at `path`, as `package.module:function`.

    Raises `VerifierError` where it cannot be loaded.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._waiting = 0
        self._closed = False
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="verifier")
        self._start()

    async def score(self, messages: Sequence[Mapping[str, str]], answer: str) -> float | None:
        """Raises `VerifierFailure`, at once where too many answers wait already."""
        if self._waiting >= MAX_WAITING:
            raise VerifierFailure("busy", f"{MAX_WAITING} answers wait for the verifier already")
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(
                self._thread, self._score, messages, answer
            )
        finally:
            self._waiting -= 1

    def close(self) -> None:
        self._closed = True
        self._process.kill()
        self._thread.shutdown(cancel_futures=True)

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_work, args=(self._path, theirs), daemon=True)
        self._process.start()
        theirs.close()
        try:
            problem = (
                self._pipe.recv()
                if self._pipe.poll(START_SECONDS)
                else f"it took longer than {START_SECONDS:g} seconds"
            )
        except EOFError:
            problem = "its process died"
        if problem is not None:
            self._process.kill()
            raise VerifierError(
                f"cannot load the verifier {self._path} ({problem}): give --verifier as "
                f"package.module:function, importable from here"
            )

    def _restart(self) -> None:
        self._process.kill()
        if self._closed:
            return
        try:
            self._start()
        except VerifierError as error:
            raise VerifierFailure("error", str(error)) from error

    def _score(self, messages: Sequence[Mapping[str, str]], answer: str) -> float | None:
        """In the thread."""
        try:
            self._pipe.send((list(messages), answer))
            if not self._pipe.poll(JUDGE_SECONDS):
                raise VerifierFailure("timeout", f"the verifier took over {JUDGE_SECONDS:g} s")
            score, problem = self._pipe.recv()
        except (VerifierFailure, OSError, EOFError) as error:
            self._restart()
            if isinstance(error, VerifierFailure):
                raise
            raise VerifierFailure("error", "the verifier's process died") from error
        if problem is not None:
            raise VerifierFailure("error", f"the verifier failed: {problem}")
        if score is None:
            return None
        if not isinstance(score, int | float) or not 0 <= score <= 1:
            raise VerifierFailure("invalid", "the verifier's score is no number from 0 to 1")
        return float(score)


def _work(path: str, pipe: Connection[Any, Any]) -> None:
    """The process: say whether the judge loads, then answer until the pipe closes.

    A terminal signals it too, and the server that drains still wants its scores.
    """
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    try:
        sys.path.insert(0, str(Path.cwd()))
        module, _, name = path.partition(":")
        judge: Judge = getattr(importlib.import_module(module), name)
    except Exception as error:  # noqa: BLE001 - whatever a module raises while it loads is told
        pipe.send(f"{type(error).__name__}: {error}")
        return
    pipe.send(None)
    while True:
        try:
            messages, answer = pipe.recv()
        except EOFError:
            return
        try:
            pipe.send((judge(messages, answer), None))
        except Exception as error:  # noqa: BLE001 - the operator's code may fail in any way
            pipe.send((None, type(error).__name__))
