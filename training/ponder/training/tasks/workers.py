"""Judging answers in worker processes, where a verifier may hang, raise, die or eat memory.

Verifiers run other people's code on whatever a model wrote. Each worker has a limit of memory and,
per answer, of time; both are the kernel's, so that neither a loop in C nor the death of this
process outlives them. An answer that cannot be judged is wrong, and counted by its cause.
"""

from __future__ import annotations

import logging
import os
import pickle
import resource
import signal
import subprocess
import sys
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection, Pipe, wait
from typing import Literal, Self

from .base import Problem
from .verifiers import VERIFIERS, Verifier

Failure = Literal["time", "memory", "error", "death"]
# Correct; why it could not be judged ("loading": what the verifier needs is not there); details.
Reply = tuple[bool, Failure | Literal["loading"] | None, str]

# What a verifier needs is loaded outside the time limit of an answer, but not for ever.
_LOADING_LIMIT_S = 120.0
_DETAIL = 500  # characters

_log = logging.getLogger(__name__)


class VerifierError(RuntimeError):
    """No answer can be judged; the message names the remedy."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether an answer is right; `failure` says why one that is wrong could not be judged."""

    correct: bool
    failure: Failure | None = None


class VerifierPool:
    """Judges answers: trusted verifiers at once, the others in `workers` processes.

    `time_limit_s` holds per answer, `memory_limit_mb` per worker (its address space). Workers start
    when they are first needed; one that broke a limit or died is replaced. `failures` counts the
    answers that could not be judged, and the log warns of the first of each cause. `close`, or the
    end of a `with`, ends all workers. One thread at a time.
    """

    def __init__(
        self,
        workers: int = 2,
        time_limit_s: float = 5.0,
        memory_limit_mb: int = 2048,
        verifiers: Mapping[str, Verifier] = VERIFIERS,
    ) -> None:
        self.failures: Counter[Failure] = Counter()
        self._workers = workers
        self._time_limit_s = time_limit_s
        self._memory_limit_mb = memory_limit_mb
        self._verifiers = verifiers
        self._idle: list[_Worker] = []

    def judge(self, items: Iterable[tuple[Problem, str]]) -> list[Verdict]:
        """A verdict per problem and text after the thought, in their order.

        `VerifierError` where workers cannot start or cannot load what a verifier needs.
        """
        verdicts: dict[int, Verdict] = {}
        jobs: list[tuple[int, Problem, bytes]] = []
        for index, (problem, text) in enumerate(items):
            verifier = self._verifiers[problem.verifier]
            if verifier.trusted:
                verdicts[index] = Verdict(verifier.check(problem, text))
            else:
                jobs.append((index, problem, pickle.dumps((verifier, problem, text))))
        verdicts.update(self._judge_apart(jobs))
        return [verdicts[index] for index in range(len(verdicts))]

    def close(self) -> None:
        while self._idle:
            self._idle.pop().kill()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _judge_apart(self, jobs: list[tuple[int, Problem, bytes]]) -> Iterator[tuple[int, Verdict]]:
        waiting = deque(jobs)
        busy: dict[Connection, tuple[_Worker, tuple[int, Problem, bytes]]] = {}
        patience_s = _LOADING_LIMIT_S + self._time_limit_s
        try:
            while waiting or busy:
                while waiting and len(busy) < self._workers:
                    job = waiting.popleft()
                    worker = self._hand_over(job[-1])
                    busy[worker.connection] = worker, job
                ready = wait(list(busy), patience_s)
                # Nobody answers: a verifier switched the alarm off that should have ended it.
                for connection in [c for c in busy if c in ready] or list(busy):
                    worker, job = busy.pop(connection)
                    reply = worker.reply() if ready else worker.overdue()
                    if reply[1] == "loading" and worker.used:
                        worker.kill()  # what it loaded before may fill its memory: try a new one
                        waiting.append(job)
                    else:
                        index, problem, _ = job
                        yield index, self._settle(worker, problem, reply)
        finally:
            for worker, _ in busy.values():
                worker.kill()

    def _hand_over(self, job: bytes) -> _Worker:
        """Send a job to an idle worker that lives, or to a new one."""
        while self._idle:
            worker = self._idle.pop()
            try:
                worker.connection.send_bytes(job)
            except OSError:  # it was killed while it waited: no answer's fault
                worker.kill()
            else:
                return worker
        worker = _Worker(self._time_limit_s, self._memory_limit_mb)
        worker.connection.send_bytes(job)
        return worker

    def _settle(self, worker: _Worker, problem: Problem, reply: Reply) -> Verdict:
        correct, failure, detail = reply
        if failure in (None, "error"):
            worker.used = True
            self._idle.append(worker)
        else:
            worker.kill()
        if failure == "loading":
            raise VerifierError(
                f"the verifier {problem.verifier} cannot be loaded ({detail}): install "
                f"ponder[train], or raise the {self._memory_limit_mb} MB of memory_limit_mb"
            )
        if failure is not None:
            self.failures[failure] += 1
            if self.failures[failure] == 1:
                _log.warning(
                    "the verifier %s failed on an answer to %s (%s: %s): the answer counts as "
                    "wrong; further failures of this kind are only counted",
                    problem.verifier,
                    problem.id,
                    failure,
                    detail,
                )
        return Verdict(correct, failure)


class _Worker:
    """A process that judges one answer at a time. It ends when its connection does."""

    def __init__(self, time_limit_s: float, memory_limit_mb: int) -> None:
        self.used = False
        self.connection, there = Pipe()
        self._limits = f"{time_limit_s:g} s", f"{memory_limit_mb} MB"
        with there:
            # Neither forked (threads, an accelerator) nor spawned, which would import the caller's
            # main module, torch and all. A group of its own keeps Ctrl-C from it.
            self._process = subprocess.Popen(
                [
                    sys.executable, "-P", "-W", "ignore", "-c",
                    f"from {__name__} import _serve; "
                    f"_serve({there.fileno()}, {time_limit_s}, {memory_limit_mb})",
                ],
                pass_fds=[there.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"},
                process_group=0,
            )  # fmt: skip
        try:
            greeted = self.connection.poll(_LOADING_LIMIT_S) and self.connection.recv_bytes()
        except (EOFError, OSError):
            greeted = False
        if not greeted:
            self.kill()
            raise VerifierError(
                f"a verifier's worker did not start within {memory_limit_mb} MB: mend the error "
                "that it printed, or raise memory_limit_mb"
            )

    def reply(self) -> Reply:
        try:
            reply: Reply = self.connection.recv()
        except (EOFError, OSError):
            self.kill()
            code = self._process.returncode
            if code == -signal.SIGALRM:
                return self.overdue()
            return False, "death", f"its process ended with {code}"
        if reply[1] == "memory":
            return False, "memory", f"more than {self._limits[1]}"
        return reply

    def overdue(self) -> Reply:
        return False, "time", f"no verdict within {self._limits[0]}"

    def kill(self) -> None:
        self.connection.close()
        if self._process.returncode is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


def _serve(fd: int, time_limit_s: float, memory_limit_mb: int) -> None:
    """A worker's life: judge what arrives on the connection `fd` until it closes."""
    limit = memory_limit_mb * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # which ends the process
    connection = Connection(fd)
    connection.send_bytes(b"ready")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # what verifiers print is nobody's business
    while True:
        try:
            job = connection.recv_bytes()
        except EOFError:
            return
        connection.send(_judge(job, time_limit_s))


def _judge(job: bytes, time_limit_s: float) -> Reply:
    signal.setitimer(signal.ITIMER_REAL, _LOADING_LIMIT_S)
    try:
        verifier, problem, text = pickle.loads(job)
        if verifier.prepare is not None:
            verifier.prepare(problem)
    except Exception as error:  # noqa: BLE001  whatever it is, it is told where it can be mended
        return False, "loading", repr(error)[:_DETAIL]
    signal.setitimer(signal.ITIMER_REAL, time_limit_s)
    try:
        return bool(verifier.check(problem, text)), None, ""
    except MemoryError:
        return False, "memory", ""
    except Exception as error:  # noqa: BLE001  whatever a verifier raises, the run goes on
        return False, "error", repr(error)[:_DETAIL]
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
