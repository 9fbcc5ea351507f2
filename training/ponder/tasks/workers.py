"""Judges answers in worker processes, where a verifier may hang, raise, die or eat memory.

Verifiers run other people's code on whatever a model wrote. A worker (`keeper`) loads that code and
has answers judged in cells (`ponder.cage`). An answer that cannot be judged is wrong, and counted
by its cause. Verdicts come back as JSON: this process runs or unpickles nothing from a judge.
"""

from __future__ import annotations

import json
import logging
import math
import pickle
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from typing import Any, Literal, Self

from ponder.cage.child import Child
from ponder.errors import VerifierError

from .keeper import LOADING_LIMIT_S, Item
from .problems import Problem
from .verifiers import VERIFIERS, Verifier, find

Failure = Literal["time", "memory", "error", "death", "canary"]

_SINGLE_THREADED = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether an answer is right; `failure` is set where it is wrong because judging it failed."""

    correct: bool
    failure: Failure | None = None


@dataclass(frozen=True, slots=True)
class _Job:
    """Answers that one verifier judges together, by their index in the batch."""

    verifier: Verifier
    items: Mapping[int, Item]
    again: bool = False  # an earlier judge misjudged its canaries


class VerifierPool:
    """Judges answers: with trusted verifiers in this process, with others in `workers` processes.

    `time_limit_s` holds per answer, `memory_limit_mb` per process (its address space). Workers
    start when they are first needed; a worker that died or misjudged its canaries is replaced.
    `failures` counts the answers that could not be judged, and the log warns of the first of each
    cause. `close`, or the end of a `with`, ends all workers. Use it from one thread at a time.
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
        self._warned = False

    def judge(self, items: Iterable[tuple[Problem, str]]) -> list[Verdict]:
        """A verdict per problem and text after the thought, in their order.

        `VerifierError` where workers cannot start, cannot load a verifier, or misjudge canaries
        twice.
        """
        verdicts: dict[int, Verdict] = {}
        apart: dict[tuple[str, str, int], dict[int, Item]] = {}
        for index, (problem, text) in enumerate(items):
            verifier = find(problem.verifier, self._verifiers)
            if verifier.trusted:
                verdicts[index] = self._judge_here(verifier, problem, text)
            else:
                kind = problem.verifier, problem.family, problem.difficulty
                apart.setdefault(kind, {})[index] = problem, text
        for index, verdict in self._judge_apart(self._jobs(apart)):
            verdicts[index] = verdict
        return [verdicts[index] for index in range(len(verdicts))]

    def close(self) -> None:
        while self._idle:
            self._idle.pop().kill()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _judge_here(self, verifier: Verifier, problem: Problem, text: str) -> Verdict:
        try:
            return Verdict(verifier.check(problem, text))
        except Exception as error:  # noqa: BLE001 - on a text that its author did not expect
            return self._settle(problem, False, "error", repr(error))

    def _jobs(self, apart: Mapping[tuple[str, str, int], Mapping[int, Item]]) -> deque[_Job]:
        """Jobs whose items need the same modules loaded, small enough to occupy every worker."""
        jobs: deque[_Job] = deque()
        for (name, _, _), items in apart.items():
            verifier = find(name, self._verifiers)
            size = min(verifier.shared, math.ceil(len(items) / self._workers))
            places = list(items)
            for start in range(0, len(places), size):
                part = places[start : start + size]
                jobs.append(_Job(verifier, {place: items[place] for place in part}))
        return jobs

    def _judge_apart(self, waiting: deque[_Job]) -> Iterator[tuple[int, Verdict]]:
        busy: dict[Connection, tuple[_Worker, _Job]] = {}
        try:
            while waiting or busy:
                while waiting and len(busy) < self._workers:
                    job = waiting.popleft()
                    worker = self._hand_over(job)
                    busy[worker.connection] = worker, job
                longest = max(len(job.items) for _, job in busy.values())
                # A worker enforces its limits itself; a worker silent for longer is broken.
                ready = wait(list(busy), LOADING_LIMIT_S + 4 * longest * (self._time_limit_s + 1))
                for connection in [c for c in busy if c in ready] or list(busy):
                    worker, job = busy.pop(connection)
                    yield from self._heard(worker, job, waiting)
        finally:
            for worker, _ in busy.values():
                worker.kill()

    def _hand_over(self, job: _Job) -> _Worker:
        """Give a job to an idle worker that lives, or to a new one."""
        frame = pickle.dumps((job.verifier, list(job.items.values())))
        while self._idle:
            worker = self._idle.pop()
            try:
                worker.send(frame)
            except OSError:  # the idle worker was killed: no answer's fault
                worker.kill()
            else:
                return worker
        worker = _Worker(self._time_limit_s, self._memory_limit_mb)
        if not (worker.filtered or self._warned):
            self._warned = True
            _log.warning(
                "this kernel takes no seccomp filter: judges are held by limits and by Python's "
                "audit hook alone"
            )
        with suppress(OSError):  # reading its reply will notice a worker that is gone by now
            worker.send(frame)
        return worker

    def _heard(
        self, worker: _Worker, job: _Job, waiting: deque[_Job]
    ) -> Iterator[tuple[int, Verdict]]:
        """The verdicts of a finished job; any other reply requeues the job or is an error."""
        try:
            reply = worker.reply()
        except EOFError:
            detail = f"its worker ended with {worker.kill()}"
            if len(job.items) > 1:  # one of them may have ended it: judge each by itself
                waiting.extend(replace(job, items={i: item}) for i, item in job.items.items())
                return
            index, (problem, _) = next(iter(job.items.items()))
            yield index, self._settle(problem, False, "death", detail)
            return
        if "rulings" in reply:
            worker.used = True
            self._idle.append(worker)
            for (index, (problem, _)), ruling in zip(
                job.items.items(), reply["rulings"], strict=True
            ):
                yield index, self._settle(problem, *ruling)
            return
        worker.kill()
        name = next(iter(job.items.values()))[0].verifier
        if "loading" in reply:
            if not worker.used:
                raise VerifierError(
                    f"the verifier {name} cannot be loaded ({reply['loading']}): install "
                    f"ponder[train], or raise the {self._memory_limit_mb} MB of memory_limit_mb"
                )
            waiting.append(job)  # earlier loads may fill its memory: try a new worker
            return
        if job.again:
            raise VerifierError(
                f"two judges in a row were wrong about answers that are known ({name}: "
                f"{reply['mistaken']}): mend the verifier, or raise the limits of "
                f"{self._time_limit_s:g} s and {self._memory_limit_mb} MB"
            )
        _log.warning(
            "a judge was wrong about answers that are known (%s: %s): it is ended, and the %d "
            "answers before it are judged anew",
            name,
            reply["mistaken"],
            len(job.items),
        )
        waiting.append(replace(job, again=True))

    def _settle(
        self, problem: Problem, correct: bool, failure: Failure | None, detail: str
    ) -> Verdict:
        if failure is None:
            return Verdict(correct)
        self.failures[failure] += 1
        if self.failures[failure] == 1:
            limits = {"time": f"no verdict within {self._time_limit_s:g} s",
                      "memory": f"more than {self._memory_limit_mb} MB"}  # fmt: skip
            _log.warning(
                "the verifier %s failed on an answer to %s (%s: %s): the answer counts as "
                "wrong; further failures of this kind are only counted",
                problem.verifier,
                problem.id,
                failure,
                limits.get(failure, detail),
            )
        return Verdict(False, failure)


class _Worker(Child):
    """A process that does one job at a time."""

    def __init__(self, time_limit_s: float, memory_limit_mb: int) -> None:
        super().__init__(
            *("ponder.tasks.keeper:serve", time_limit_s, memory_limit_mb),
            environment=_SINGLE_THREADED,  # processes with threads cannot be forked
        )
        self.used = False
        try:
            greeting = self.receive(LOADING_LIMIT_S)
        except EOFError:
            greeting = None
        if greeting is None:
            self.kill()
            raise VerifierError(
                f"a verifier's worker did not start within {memory_limit_mb} MB: mend the error "
                "that it printed, or raise memory_limit_mb"
            )
        self.filtered = bool(json.loads(greeting)["filtered"])

    def reply(self) -> dict[str, Any]:
        """The next reply; raises `EOFError` when the worker has ended."""
        frame = self.receive(0)
        if frame is None:
            raise EOFError
        answer: dict[str, Any] = json.loads(frame)
        return answer
