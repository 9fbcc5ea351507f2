"""An engine with continuous batching, in virtual time: an event per request, not per token."""

from __future__ import annotations

import heapq
import math
from collections import deque
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from .profiles import Profile

Owner = TypeVar("Owner")


@dataclass(slots=True, eq=False)
class Job(Generic[Owner]):
    """One engine request, which samples `tokens` tokens behind a prompt.

    `cached` of the prompt's tokens are in the engine's prefix cache. `mark` is the sampled token
    that the engine reports, such as an answer's first; infinite for none. When the job leaves the
    engine, `done` is the number of tokens that it has sampled.
    """

    owner: Owner
    prompt: int
    tokens: int
    mark: float = 1
    cached: int = 0
    done: int = 0
    marked: bool = False
    entered: float = field(default=0.0, repr=False)
    running: bool = False
    entry: int = field(default=0, repr=False)

    @property
    def context(self) -> int:
        """Tokens in the cache."""
        return self.prompt + self.done


class SimulatedEngine(Generic[Owner]):
    """Running rows all get one token per step, so they share one counter of steps, `_steps`.

    A row that enters at s steps and samples n tokens ends at s + n, so that no row costs work
    between two events. When the cache is full, the engine preempts the newest row, as vLLM does:
    the row waits again, and its whole context becomes its prompt.

    Times are in seconds.
    """

    def __init__(self, profile: Profile) -> None:
        self.profile = profile
        self.waiting: deque[Job[Owner]] = deque()
        self.running = 0
        self.prefilled = 0  # tokens
        self.version = 0  # changes when the answer of `next_at` does
        self._ends: list[tuple[float, int, Job[Owner]]] = []
        self._marks: list[tuple[float, int, Job[Owner]]] = []
        self._newest: list[Job[Owner]] = []
        self._count = 0
        self._steps = 0.0
        self._offset = 0.0  # of the context: the running rows hold this plus their steps
        self._stall = 0.0  # seconds of prefill before the next step
        self._at = 0.0

    @property
    def load(self) -> int:
        return self.running + len(self.waiting)

    @property
    def context(self) -> float:
        """Tokens in the cache of running rows."""
        return self._offset + self.running * self._steps

    def add(self, job: Job[Owner], now: float) -> None:
        self.advance(now)
        self.waiting.append(job)
        self._admit()

    def remove(self, job: Job[Owner], now: float) -> None:
        """Abort it: `done` says how far it came."""
        self.advance(now)
        if job.running:
            self._leave(job)
        else:
            self.waiting.remove(job)
        self._admit()

    def sampled(self, job: Job[Owner]) -> int:
        """Tokens that the job has sampled by now."""
        if not job.running:
            return job.done
        return min(job.tokens, int(self._steps - job.entered + _EPSILON))

    def advance(self, now: float) -> None:
        """Move the clock to `now`, which must not lie beyond the next event."""
        passed, self._at = now - self._at, now
        stalled = min(passed, self._stall)
        self._stall -= stalled
        if self.running:
            self._steps += (passed - stalled) / self._step()

    def next_at(self) -> float:
        """Time of the next event (a mark, an end, a full cache) if no job is added or removed."""
        steps = math.inf
        for heap in (self._marks, self._ends):
            while heap and not _runs(heap[0]):
                heapq.heappop(heap)
            if heap:
                steps = min(steps, heap[0][0] - self._steps)
        if self.running:
            room = self.profile.cache - self.context
            steps = min(steps, max(1.0, room / self.running), _LONGEST)
        return self._at + self._stall + max(0.0, steps) * self._step() if self.running else math.inf

    def happen(self, now: float) -> tuple[list[Job[Owner]], list[Job[Owner]]]:
        """Process the events at `now`, from `next_at`: returns jobs at a mark, and ended ones."""
        self.advance(now)
        marked: list[Job[Owner]] = []
        ended: list[Job[Owner]] = []
        for heap, found in ((self._marks, marked), (self._ends, ended)):
            while heap and heap[0][0] <= self._steps + _EPSILON:
                entry = heapq.heappop(heap)
                if _runs(entry):
                    found.append(entry[2])
        marked = [job for job in marked if not job.marked]
        for job in marked:
            job.marked = True
        for job in ended:
            self._leave(job)
            job.done = job.tokens
        while self.running > 1 and self.context > self.profile.cache:
            self._preempt()
        self._admit()
        return marked, ended

    def _step(self) -> float:
        return self.profile.step(self.running, self.context)

    def _admit(self) -> None:
        while self.waiting and self.running < self.profile.rows:
            job = self.waiting[0]
            if self.running and self.context + job.context > _FULL * self.profile.cache:
                return
            self.waiting.popleft()
            fresh = job.context - job.cached
            self.prefilled += fresh
            self._stall += fresh * self.profile.prompt_s
            job.running, job.entered = True, self._steps - job.done
            self.running += 1
            self._offset += job.context - self._steps
            self._count += 1
            job.entry = self._count
            heapq.heappush(self._marks, (job.entered + job.mark, self._count, job))
            heapq.heappush(self._ends, (job.entered + job.tokens, self._count, job))
            self._newest.append(job)

    def _leave(self, job: Job[Owner]) -> None:
        job.done = self.sampled(job)
        job.running = False
        self.running -= 1
        self._offset -= job.prompt - job.entered
        if not self.running:
            self._offset = self._steps = 0.0

    def _preempt(self) -> None:
        while not (job := self._newest.pop()).running:
            pass
        self._leave(job)
        job.cached = 0
        self.waiting.appendleft(job)


def _runs(entry: tuple[float, int, Job[Owner]]) -> bool:
    """Whether a heap entry's row still runs and was not preempted after the entry was made."""
    return entry[2].running and entry[2].entry == entry[1]


_LONGEST = 64.0  # steps at one pace: a context that grows makes them slower
_FULL = 0.95  # of the cache: beyond it no job is admitted
_EPSILON = 1e-6
