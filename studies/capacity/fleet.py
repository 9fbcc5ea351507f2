"""Replicas of Ponder, a router and engines, as a discrete-event simulation.

A budget acts as in the server: a longer thought is aborted at its budget, and its answer is a
request of its own, behind the close text. Load levels, shares and the pools' lending run the
server's own code.
"""

from __future__ import annotations

import heapq
import itertools
import math
import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from ponder.server.pools.protocol import PoolSize, fair_part
from ponder.server.shedding import SHARES, Level

from .engine import Job, SimulatedEngine
from .profiles import Profile
from .traffic import Asked

CLOSE = 8
"""Tokens of a close text."""
Cause = Literal["natural", "budget", "pool", "load", "deadline"]


@dataclass(frozen=True, slots=True)
class Policy:
    """What the fleet does with requests.

    `affinity`: a re-entry goes to the engine that has its prefix; without affinity it goes
    wherever there is room, like any request. `unasked` is the budget of requests without one.
    `places` bounds the requests inside; the fleet refuses others (503). `shed`: default budgets
    shrink by the server's load levels. `pool`: the size of a tenant's pool. `deadline_s`: a thought
    is closed when the time left is `safety` times the recent time of an answer. `resume`: requests
    of a dead engine are entered again; without it they fail.
    """

    name: str
    affinity: bool = True
    places: float = math.inf
    shed: bool = False
    unasked: int = 16_000
    pool: PoolSize | None = None
    deadline_s: float | None = None
    safety: float = 1.5
    resume: bool = True


@dataclass(slots=True, eq=False)
class Reply:
    """The course of a request. Times are in seconds, lengths in tokens."""

    asked: Asked
    budget: float
    cause: Cause
    job: Job[Reply] | None = None
    engine: SimulatedEngine[Reply] | None = None
    thinking: int = 0
    answering: bool = False
    answer_at: float | None = None
    ended_at: float | None = None
    failed: bool = False
    lent: int = 0
    resumed: int = 0
    closed_at: float = 0.0


@dataclass(slots=True)
class Outcome:
    """A simulation's replies and refusals after its warm-up, and the engines' total work."""

    replies: list[Reply]
    refused: int
    seconds: float
    most_inside: int
    prefilled: int
    sampled: int

    def answered(self) -> list[Reply]:
        return [one for one in self.replies if one.ended_at is not None and not one.failed]

    def first_answer_s(self, share: float) -> float:
        """Quantile `share` of the seconds to an answer's first token; a missing one is infinite."""
        waits = sorted(
            math.inf if one.answer_at is None else one.answer_at - one.asked.at
            for one in self.replies
            if not one.failed
        )
        return waits[math.ceil(share * len(waits)) - 1] if waits else math.inf

    def goodput(self, within_s: float) -> float:
        """Answers per second that were complete within `within_s` seconds."""
        good = sum(
            one.ended_at - one.asked.at <= within_s
            for one in self.answered()
            if one.ended_at is not None
        )
        return good / self.seconds

    def figures(self, within_s: float) -> dict[str, float]:
        answered, offered = self.answered(), max(1, len(self.replies) + self.refused)
        thinking = [one.thinking for one in answered]
        others = replace(self, replies=[one for one in self.replies if one.asked.tenant])
        of_others = {
            "others_first_answer_p99_s": others.first_answer_s(0.99),
            "others_goodput_per_s": others.goodput(within_s),
            "others_thinking_tokens": sum(one.thinking for one in others.answered())
            / max(1, len(others.answered())),
        }
        return {
            **(of_others if others.replies else {}),
            "offered_per_s": offered / self.seconds,
            "goodput_per_s": self.goodput(within_s),
            "answered": len(answered) / offered,
            "refused": self.refused / offered,
            "first_answer_p50_s": self.first_answer_s(0.5),
            "first_answer_p99_s": self.first_answer_s(0.99),
            "thinking_tokens": sum(thinking) / max(1, len(thinking)),
            "cut": sum(one.cause != "natural" for one in answered) / max(1, len(answered)),
            "most_inside": self.most_inside,
            "prefilled_per_sampled": self.prefilled / max(1, self.sampled),
        }


_POOL: Cause = "pool"


@dataclass(slots=True)
class _Pool:
    size: PoolSize
    left: float
    at: float = 0.0

    def lend(self, want: float, now: float) -> int:
        rate = self.size.tokens / self.size.seconds
        self.left = min(self.size.tokens, self.left + (now - self.at) * rate)
        self.at = now
        wanted = int(min(want, self.size.tokens))
        part = min(wanted, fair_part(int(self.left), [wanted], self.size))
        self.left -= part
        return part


class Fleet:
    """`engines` engines of a profile under a policy.

    A request that needs no particular engine goes to the less loaded of two random ones ("power of
    two choices"), which models a router's least-loaded choice.

        >>> from studies.capacity.profiles import Profile
        >>> from studies.capacity.traffic import Traffic
        >>> fleet = Fleet(Profile("toy", base_s=0.01), engines=2, policy=Policy("plain"))
        >>> done = fleet.run(Traffic(rate=5, seconds=20, thought=50).requests())
        >>> len(done.answered()) == len(done.replies)
        True
    """

    def __init__(self, profile: Profile, engines: int, policy: Policy, *, seed: int = 0) -> None:
        self.policy = policy
        self.engines = [SimulatedEngine[Reply](profile) for _ in range(engines)]
        self._alive = list(self.engines)
        self._dice = random.Random(seed)
        self._order = itertools.count()
        self._events: list[tuple[float, int, str, object, int]] = []
        self._level = Level()
        self._looked = -math.inf
        self._pools: dict[int, _Pool] = {}
        self._inside = 0
        self._most_inside = 0
        self._refused = 0  # since the warm-up
        self._warm_up = 0.0
        self._sampled = 0
        self._answer_s = 0.0
        self._replies: list[Reply] = []
        self._after: Callable[[Reply], Asked | None] = lambda _: None

    def run(
        self,
        requests: Iterable[Asked],
        *,
        warm_up: float = 0.0,
        deaths: Mapping[float, int] | None = None,
        after: Callable[[Reply], Asked | None] = lambda _: None,
        patience: float = math.inf,
    ) -> Outcome:
        """Simulate until every request is answered, or `patience` seconds after the last arrival.

        Requests of the first `warm_up` seconds are simulated and not reported. `deaths` maps a
        time to the number of the engine that dies then for good. `after` takes a reply and may
        return its client's next request.
        """
        self._after, self._warm_up = after, warm_up
        coming = iter(requests)
        upcoming = next(coming, None)
        last = 0.0
        for at, number in (deaths or {}).items():
            self._push(at, "death", self.engines[number])
        while upcoming is not None or self._events:
            if upcoming is not None and (not self._events or upcoming.at <= self._events[0][0]):
                last = max(last, upcoming.at)
                self._arrive(upcoming)
                upcoming = next(coming, None)
                continue
            now, _, kind, what, version = heapq.heappop(self._events)
            if upcoming is None and now > last + patience:
                break
            self._happen(now, kind, what, version)
        replies = [one for one in self._replies if one.asked.at >= warm_up]
        return Outcome(
            replies,
            self._refused,
            max(1e-9, last - warm_up),
            self._most_inside,
            sum(engine.prefilled for engine in self.engines),
            self._sampled,
        )

    def _happen(self, now: float, kind: str, what: object, version: int) -> None:
        if isinstance(what, SimulatedEngine):
            if kind == "death":
                self._die(what, now)
            elif version == what.version:
                marked, ended = what.happen(now)
                for job in marked:
                    job.owner.answer_at = now
                for job in ended:
                    self._ended(job, now)
                self._watch(what)
        elif isinstance(what, Reply):
            self._look(what, now)
        elif isinstance(what, Asked):
            self._arrive(what)

    def _arrive(self, asked: Asked) -> None:
        now, policy = asked.at, self.policy
        if self._inside >= policy.places:
            self._refused += now >= self._warm_up
            return
        budget, cause = self._budget(asked, now)
        lent = 0
        if policy.pool is not None:
            pool = self._pools.setdefault(
                asked.tenant, _Pool(policy.pool, float(policy.pool.tokens), now)
            )
            lent = pool.lend(min(budget, policy.unasked), now)
            budget, cause = min((budget, cause), (float(lent), _POOL))
        self._inside += 1
        self._most_inside = max(self._most_inside, self._inside)
        reply = Reply(asked, budget, cause if asked.thought > budget else "natural", lent=lent)
        self._replies.append(reply)
        if asked.thought > budget:
            job = Job(reply, asked.prompt, max(1, int(budget)), mark=math.inf)
        else:  # thought and answer are one request
            tokens = asked.thought + asked.answer
            job = Job(reply, asked.prompt, tokens, mark=asked.thought + 1)
        self._enter(reply, job, now)
        if policy.deadline_s is not None:
            self._push(self._due(reply), "deadline", reply)

    def _budget(self, asked: Asked, now: float) -> tuple[float, Cause]:
        if not self.policy.shed:
            return min(asked.budget, self.policy.unasked), "budget"
        if now - self._looked >= 0.5:
            self._looked = now
            waiting = sum(len(engine.waiting) for engine in self._alive)
            running = sum(engine.running for engine in self._alive)
            cache = sum(engine.context / engine.profile.cache for engine in self._alive)
            full = max(cache / len(self._alive), waiting / max(1, running))
            self._level = self._level.after(full, now)
        if asked.budget < math.inf:
            return asked.budget, "budget"
        share = SHARES[self._level.step]
        return self.policy.unasked * share, "load" if share < 1 else "budget"

    def _enter(self, reply: Reply, job: Job[Reply], now: float, *, cached: int = 0) -> None:
        policy, engine = self.policy, reply.engine
        stays = policy.affinity and engine is not None and engine in self._alive
        if engine is None or not stays:
            one, other = self._dice.choice(self._alive), self._dice.choice(self._alive)
            chosen = one if one.load <= other.load else other
            job.cached = cached if chosen is engine else 0
            engine = chosen
        else:
            job.cached = cached
        reply.job, reply.engine = job, engine
        engine.add(job, now)
        self._watch(engine)

    def _ended(self, job: Job[Reply], now: float) -> None:
        reply = job.owner
        self._sampled += job.tokens
        if reply.answering:
            took = now - reply.closed_at
            self._answer_s += 0.1 * (took - self._answer_s) if self._answer_s else took
        elif reply.cause != "natural":
            self._close(reply, int(reply.budget), now)
            return
        else:
            reply.thinking = reply.asked.thought
        self._end(reply, now)

    def _close(self, reply: Reply, thinking: int, now: float) -> None:
        reply.thinking, reply.answering, reply.closed_at = thinking, True, now
        prompt = reply.asked.prompt + thinking + CLOSE
        job = Job(reply, prompt, reply.asked.answer)
        self._enter(reply, job, now, cached=prompt - CLOSE - thinking % 16)

    def _due(self, reply: Reply) -> float:
        assert self.policy.deadline_s is not None
        return reply.asked.at + self.policy.deadline_s - self.policy.safety * self._answer_s

    def _look(self, reply: Reply, now: float) -> None:
        """Close a thought whose answer is due, else schedule the next look."""
        job, engine = reply.job, reply.engine
        if reply.ended_at is not None or reply.answering or job is None or engine is None:
            return
        due = self._due(reply)
        if due > now + 0.002:
            self._push(max(due, now + (due - now) / 2), "deadline", reply)
            return
        engine.advance(now)
        done = reply.resumed + engine.sampled(job)
        if reply.cause == "natural" and done >= reply.asked.thought:
            return  # the thought has ended by itself, and its answer has begun
        engine.remove(job, now)
        self._watch(engine)
        self._sampled += job.done
        reply.cause = "deadline"
        self._close(reply, done, now)

    def _end(self, reply: Reply, now: float) -> None:
        reply.ended_at = now
        self._inside -= 1
        following = self._after(reply)
        if following is not None:
            self._push(following.at, "request", following)
        pool = self._pools.get(reply.asked.tenant)
        if pool is not None:
            pool.left += max(0, reply.lent - reply.thinking)

    def _die(self, engine: SimulatedEngine[Reply], now: float) -> None:
        engine.advance(now)
        self._alive.remove(engine)
        engine.version += 1
        for reply in self._replies:
            if reply.engine is not engine or reply.ended_at is not None:
                continue
            job = reply.job
            assert job is not None
            done = engine.sampled(job)
            if not self.policy.resume:
                reply.failed = True
                self._end(reply, now)
                continue
            self._sampled += done
            reply.resumed += 0 if reply.answering else done
            left = Job(reply, job.prompt + done, max(1, job.tokens - done), max(0, job.mark - done))
            left.marked = job.marked
            self._enter(reply, left, now)

    def _watch(self, engine: SimulatedEngine[Reply]) -> None:
        """Schedule the engine's next event."""
        engine.version += 1
        at = engine.next_at()
        if at < math.inf:
            self._push(at, "engine", engine, engine.version)

    def _push(self, at: float, kind: str, what: object, version: int = 0) -> None:
        heapq.heappush(self._events, (at, next(self._order), kind, what, version))
