"""Runs a thought on an engine: the one place in the domain that awaits."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import replace

from ponder.engine.protocol import Chunk, Engine, EngineError, EngineRequest, Origin, Sampling
from ponder.thought.outcome import Outcome
from ponder.thought.pace import Pace, Timing
from ponder.thought.probes import ProbeRequest
from ponder.thought.segment import Segment
from ponder.thought.thought import Event, Thought

logger = logging.getLogger(__name__)
_clock = time.perf_counter
_PIECE_STEP, _DRAW_STEP = 0xD1342543DE82EF95, 0xBF58476D1CE4E5B9  # odd: seeds far from each other
_SEED_MASK = (1 << 63) - 1


async def drive(
    thought: Thought, engine: Engine, request_id: str, emit: Callable[[Event], None]
) -> Outcome:
    """Run a thought to its end, without wakes from outside; see `Driver`."""
    return await Driver(thought, engine, request_id, emit).run()


class Driver:
    """Runs one thought on an engine.

    `emit` gets text as it becomes certain. The driver does not wait for the reader, so that a slow
    reader cannot make the engine run past the budget. `pace` learns how fast the engine is.

    `run` takes the thought from start to end. A caller whose thoughts wait for each other calls
    `start`, then `live` as often as needed, then `close`. A fork has started already; its `draw`
    separates its seeds from those of the original. The driver calls `moved` when the thought is
    closed between two calls of `live`. Engine requests carry `affinity` (by default `request_id`)
    and `origin`.
    """

    def __init__(
        self,
        thought: Thought,
        engine: Engine,
        request_id: str,
        emit: Callable[[Event], None],
        pace: Pace | None = None,
        *,
        draw: int = 0,
        moved: Callable[[], None] = lambda: None,
        affinity: str | None = None,
        origin: Origin | None = None,
    ) -> None:
        self._thought = thought
        self._engine = engine
        self._request_id = request_id
        self._emit = emit
        self._pace = Pace() if pace is None else pace
        self._draw = draw
        self._moved = moved
        self._affinity = request_id if affinity is None else affinity
        self._origin = Origin() if origin is None else origin
        self._read = bool(thought.thinking_ids)  # whether the engine has read the prompt
        self._living = False
        self._waiting = asyncio.timeout(None)  # for the engine; a wake that closes ends the wait
        self._alarm: asyncio.TimerHandle | None = None
        self._alarm_at = math.inf
        self._hears: Segment | None = None  # the segment whose stream is awaited
        self._woken: list[Event] = []  # events of wakes, not emitted yet
        self._probes: Sequence[ProbeRequest] = ()
        self._probing: dict[ProbeRequest, asyncio.Task[None]] = {}

    async def run(self) -> Outcome:
        """Run the thought to its end; cancelling aborts the engine's requests.

        A probe that the engine fails is skipped.

        Raises `NoAnswerProduced`, `EngineError`.
        """
        self.start()
        try:
            await self.live()
        finally:
            await self.close()
        outcome = self._thought.outcome
        if outcome.failure is not None:
            raise outcome.failure
        return outcome

    def start(self) -> None:
        """Start the thought; nothing is sampled yet."""
        self._tell(self._thought.start(_clock()))

    async def live(self, most: float = math.inf) -> None:
        """Run until the thought is over, or until it is open and has `most` tokens.

        A thought that has `most` tokens waits, and may be closed while it does. The next call of
        `live` goes on in a new engine request.
        """
        thought, lived = self._thought, False
        self._living = True
        while (segment := thought.segment) is not None:
            if thought.thinking and len(thought.thinking_ids) >= most:
                self._living = False
                return
            lived = True
            await self._live(segment, most)
        if lived and thought.outcome.failure is None:
            self._pace.answered(thought.outcome.answer_tokens)

    async def close(self) -> None:
        """Cancel the alarm and abort the probes."""
        self._set_alarm(math.inf)
        await self._end_probes()

    def wake(self) -> None:
        """Ask the exits now, without waiting for the engine.

        The alarm calls this when an exit's time has come; callers that want the thought closed do
        too. Before the thought starts and after it has ended, it does nothing.
        """
        segment = self._thought.segment
        if segment is not None:
            self._wake(segment, self._thought.tick(_clock()))

    def _wake(self, segment: Segment | None, events: Sequence[Event]) -> None:
        """Take `events` that did not come from a chunk; the thought was running `segment`."""
        self._woken.extend(events)
        if self._thought.segment is segment:
            self._set_alarm(self._thought.wake_at)
        elif self._hears is segment:  # else its request has not begun, and never will
            self._waiting.reschedule(0)
        elif not self._living:
            self._moved()
        self._run_probes()

    async def probed(self) -> None:
        """Wait for the running probes."""
        if self._probing:
            await asyncio.wait(self._probing.values())
        self._tell_woken()

    async def _live(self, segment: Segment, most: float) -> None:
        """Run one request until it ends, or until the thought wants another one."""
        thought, resumed = self._thought, bool(segment.sampled)
        stream = self._engine.generate(self._request(segment, most))
        self._waiting, self._hears = asyncio.timeout(None), segment
        answers = not thought.thinking and segment.number > 0  # a request for the answer alone
        timing = Timing(self._pace, _clock(), continues=self._read, answers=answers)
        try:
            async with self._waiting, aclosing(stream):
                self._set_alarm(thought.wake_at)
                self._run_probes()
                async for chunk in stream:
                    now = _clock()
                    timing.heard(len(chunk.token_ids), now, last=chunk.finish is not None)
                    self._read = True
                    if self._woken:
                        self._tell_woken()
                    waits = chunk.finish == "length" and _waits(segment, chunk)
                    if waits or resumed:
                        chunk = _part(chunk, waits=waits, resumed=resumed)  # noqa: PLW2901
                    if thought.segment is segment:  # else it was woken while the chunk came
                        self._tell(thought.feed(chunk, now))
                        if thought.probes is not self._probes:
                            self._run_probes()
                    if thought.segment is not segment or waits:
                        self._hears = None
                        timing.over(len(segment.sampled), now)
                        break
                    if (at := thought.wake_at) != self._alarm_at:
                        self._set_alarm(at)
                else:
                    raise EngineError("the engine's stream ended before its request did")
        except TimeoutError:
            if not self._waiting.expired():
                raise
        finally:
            timing.given_up(len(segment.sampled), _clock())
        self._tell_woken()

    def _request(self, segment: Segment, most: float) -> EngineRequest:
        """The request for the rest of a segment, or for as much as brings `most` thought tokens."""
        thought, done, sampling = self._thought, len(segment.sampled), segment.sampling
        name = f"{self._request_id}-{segment.number}"
        left = sampling.max_tokens - done
        if thought.thinking and most < math.inf:
            left = min(left, int(most) - len(thought.thinking_ids))
        if sampling.seed is not None and (done or self._draw):
            seed = sampling.seed + done * _PIECE_STEP + self._draw * _DRAW_STEP
            sampling = replace(sampling, seed=seed & _SEED_MASK)
        if not done and left == sampling.max_tokens:
            return self._asks(segment.prompt, sampling, name)
        least = max(0, min(sampling.min_tokens - done, left))
        sampling = replace(sampling, max_tokens=left, min_tokens=least)
        return self._asks([*segment.prompt, *segment.sampled], sampling, f"{name}-{done}")

    def _asks(self, prompt: Sequence[int], sampling: Sampling, name: str) -> EngineRequest:
        return EngineRequest(prompt, sampling, name, self._affinity, self._origin)

    def _run_probes(self) -> None:
        """Start the probes that the thought wants, and cancel all others."""
        wanted = self._probes = self._thought.probes
        for probe, task in self._probing.items():
            if probe not in wanted and task is not asyncio.current_task():
                task.cancel()
        for probe in wanted:
            if probe not in self._probing:
                self._probing[probe] = asyncio.create_task(self._ask_beside(probe))

    async def _ask_beside(self, probe: ProbeRequest) -> None:
        """Run one probe until it ends, or until the thought wants it no more."""
        thought, name = self._thought, f"{self._request_id}-probe-{probe.number}"
        stream = self._engine.generate(self._asks(probe.prompt, probe.sampling, name))
        try:
            async with aclosing(stream):
                async for chunk in stream:
                    segment = thought.segment
                    self._wake(segment, thought.feed_probe(probe, chunk, _clock()))
                    if probe not in thought.probes:
                        break
        except EngineError as error:
            logger.warning("the probe %s failed: %s", name, error)
            thought.feed_probe(probe, None, _clock())
        del self._probing[probe]

    async def _end_probes(self) -> None:
        """Abort the running probes. Raises the exception of a probe that ended unexpectedly."""
        for task in self._probing.values():
            task.cancel()
        for ended in await asyncio.gather(*self._probing.values(), return_exceptions=True):
            if isinstance(ended, Exception):
                raise ended

    def _tell_woken(self) -> None:
        woken, self._woken = self._woken, []
        self._tell(woken)

    def _tell(self, events: Sequence[Event]) -> None:
        for event in events:
            self._emit(event)

    def _set_alarm(self, at: float) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        self._alarm_at = at
        if at < math.inf:
            delay = max(0.0, at - _clock())
            self._alarm = asyncio.get_running_loop().call_later(delay, self.wake)


def _waits(segment: Segment, chunk: Chunk) -> bool:
    """Whether a chunk that ends its engine request leaves the segment something to sample."""
    return len(segment.sampled) + len(chunk.token_ids) < segment.sampling.max_tokens


def _part(chunk: Chunk, *, waits: bool, resumed: bool) -> Chunk:
    """A chunk of an engine request that covers only a part of its segment.

    If the segment `waits` for more, the chunk's finish is not the segment's. A `resumed` request
    finds more than the prompt in the cache, so its `cached_tokens` are left out.
    """
    finish, cached = chunk.finish, chunk.cached_tokens
    return replace(
        chunk, finish=None if waits else finish, cached_tokens=None if resumed else cached
    )
