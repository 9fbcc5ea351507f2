"""The operator's own judge of answers, as a signal of quality beside the clients' feedback.

The verifier runs in a process of its own: it cannot hold up the event loop, and if it hangs,
crashes or outgrows its memory, the server ends it and starts it again. It is the operator's code,
so it may use files and the network. But it reads text that anybody may have sent, so it is given
none of the server's keys and only the environment variables that --verifier-env names, and the
server reads its output as JSON. It runs as the server's user, in a Landlock domain of its own:
the server's environment and memory are out of its reach.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import logging
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from heapq import heappop, heappush
from itertools import count
from multiprocessing.connection import Connection
from pathlib import Path

from ponder.cage import landlock
from ponder.cage.child import Child, limit_memory
from ponder.errors import PonderError, VerifierError

logger = logging.getLogger(__name__)

Judge = Callable[[Sequence[Mapping[str, str]], str], float | None]
"""(messages as role and content, answer) → a score from 0 to 1, or None for no opinion."""

JUDGE_SECONDS = 10.0
START_SECONDS = 60.0
MAX_WAITING = 1000
REASONS = ("busy", "error", "invalid", "timeout")


class VerifierFailure(PonderError):
    """One answer got no score; `reason` is one of `REASONS`."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class Verifier:
    """Scores answers one at a time with the callable at `path`, as `package.module:function`.

    Its process has at most `memory_mb` of address space, and of the environment the variables in
    `environment`. Raises `VerifierError` where it cannot be loaded.
    """

    def __init__(self, path: str, memory_mb: int = 4096, environment: Sequence[str] = ()) -> None:
        self._path = path
        self._memory_mb = memory_mb
        for name in environment:
            if name.startswith("PONDER_"):
                raise VerifierError(f"--verifier-env {name}: the server's own are not given away")
            if name not in os.environ:
                raise VerifierError(f"--verifier-env {name}: it is not set; set it or leave it out")
        self._environment = {name: os.environ[name] for name in environment}
        self._waiting = 0
        self._turns: list[tuple[bool, int, asyncio.Future[None]]] = []  # a heap
        self._turn = count()
        self._busy = False
        self._closed = False
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="verifier")
        if not landlock.version():
            logger.warning(
                "the verifier can read the server's keys from /proc, since this kernel has no "
                "Landlock (Linux 5.13): let it run nothing that a model wrote"
            )
        self._start()

    async def score(
        self, messages: Sequence[Mapping[str, str]], answer: str, *, awaited: bool = False
    ) -> float | None:
        """Score an answer; one that a request has `awaited` comes before the others.

        Raises `VerifierFailure`, at once if too many answers wait already.
        """
        if self._waiting >= MAX_WAITING:
            raise VerifierFailure("busy", f"{MAX_WAITING} answers wait for the verifier already")
        self._waiting += 1
        try:
            await self._wait_turn(awaited)
            try:
                return await asyncio.get_running_loop().run_in_executor(
                    self._thread, self._score, messages, answer
                )
            finally:
                self._next_turn()
        finally:
            self._waiting -= 1

    async def _wait_turn(self, awaited: bool) -> None:
        if not self._busy:
            self._busy = True
            return
        turn = asyncio.get_running_loop().create_future()
        heappush(self._turns, (not awaited, next(self._turn), turn))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._next_turn()
            raise

    def _next_turn(self) -> None:
        while self._turns:
            turn = heappop(self._turns)[-1]
            if not turn.done():
                turn.set_result(None)
                return
        self._busy = False

    def close(self) -> None:
        self._closed = True
        for *_, turn in self._turns:
            turn.cancel()
        self._child.kill()
        self._thread.shutdown(cancel_futures=True)

    def _start(self) -> None:
        self._child = Child(
            f"{__name__}:_work",
            *(self._path, str(Path.cwd()), self._memory_mb, JUDGE_SECONDS),
            environment=self._environment,
        )
        try:
            frame = self._child.receive(START_SECONDS)
            problem = (
                f"it took longer than {START_SECONDS:g} seconds"
                if frame is None
                else json.loads(frame)
            )
        except EOFError:
            problem = "its process died"
        if problem is not None:
            self._child.kill()
            raise VerifierError(
                f"cannot load the verifier {self._path} ({problem}): give --verifier as "
                f"package.module:function, importable from here, with the variables that it needs "
                f"(--verifier-env) and room for it (--verifier-memory, {self._memory_mb} MB now)"
            )

    def _restart(self) -> None:
        self._child.kill()
        if self._closed:
            return
        try:
            self._start()
        except VerifierError as error:
            raise VerifierFailure("error", str(error)) from error

    def _score(self, messages: Sequence[Mapping[str, str]], answer: str) -> float | None:
        """In the thread."""
        try:
            self._child.send(json.dumps([list(messages), answer]).encode())
            frame = self._child.receive(JUDGE_SECONDS)
            if frame is None:
                raise VerifierFailure("timeout", f"the verifier took over {JUDGE_SECONDS:g} s")
            score, problem = json.loads(frame)
        except VerifierFailure:
            self._restart()
            raise
        except (OSError, EOFError, ValueError, TypeError, RecursionError) as error:
            self._restart()
            raise VerifierFailure(
                "error", "the verifier's process died or spoke no JSON"
            ) from error
        if problem == MemoryError.__name__:
            self._restart()
        if problem is not None:
            raise VerifierFailure("error", f"the verifier failed: {problem}")
        if score is None:
            return None
        if not isinstance(score, int | float) or not 0 <= score <= 1:
            raise VerifierFailure("invalid", "the verifier's score is no number from 0 to 1")
        return float(score)


def _work(
    connection: Connection, path: str, directory: str, memory_mb: int, limit_s: float
) -> None:
    """The process: report whether the judge loads, then score until the connection closes.

    It ignores the terminal's signals: a server that drains still wants its scores.
    """
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    limit_memory(memory_mb)
    landlock.leave_others(landlock.version())
    try:
        sys.path.insert(0, directory)
        module, _, name = path.partition(":")
        judge: Judge = getattr(importlib.import_module(module), name)
    except Exception as error:  # noqa: BLE001 - whatever a module raises while it loads is told
        connection.send_bytes(json.dumps(f"{type(error).__name__}: {error}").encode())
        return
    connection.send_bytes(b"null")
    while True:
        try:
            messages, answer = json.loads(connection.recv_bytes())
        except EOFError:
            return
        # Ends the process where the server is no longer there to do so.
        signal.setitimer(signal.ITIMER_REAL, limit_s + 1)
        try:
            said = json.dumps([judge(messages, answer), None], default=_number)
        except Exception as error:  # noqa: BLE001 - the operator's code may fail in any way
            said = json.dumps([None, type(error).__name__])
        signal.setitimer(signal.ITIMER_REAL, 0)
        connection.send_bytes(said.encode())


def _number(score: object) -> object:
    """Convert numpy's and torch's numbers; returns the type of anything else, which is no score."""
    try:
        return float(score)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return type(score).__name__
