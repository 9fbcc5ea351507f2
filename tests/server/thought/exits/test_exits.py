"""What closes a thought beside its budget: a clock, a signal, and rules over its tokens."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator
from contextlib import aclosing

import pytest
from after import TIME, After
from hypothesis import given
from hypothesis import strategies as st

from ponder.engine.protocol import Chunk, EngineRequest, Sampling
from ponder.engine.scripted import ByteVocabulary, ScriptedEngine, say
from ponder.thought.drive import Driver, drive
from ponder.thought.exits.budget import Budget
from ponder.thought.exits.exit import Close, Exit, GoOn, Progress
from ponder.thought.exits.watch import Watch
from ponder.thought.outcome import Outcome, ThoughtDelta
from ponder.thought.segment import AnswerRules
from ponder.thought.text import overlap
from ponder.thought.thought import Event, Thought
from server.thought.helpers import EOS, PROMPT, SINGLE, SPELT, compiled, plan
from server.thought.oracle import MARKERS

CLOSE = list(compiled().close.ids)


def thought(
    *exits: Exit,
    budget: int = 100,
    vocabulary: ByteVocabulary = SINGLE,
    opened_by: str = "template",
) -> Thought:
    return Thought(
        vocabulary,
        compiled(vocabulary, "model" if opened_by == "model" else "template"),
        prompt=PROMPT,
        plan=plan(budget, allowance=2000),
        sampling=Sampling(max_tokens=1),
        rules=AnswerRules(),
        exits=exits,
    )


def thinking(living: Thought) -> bytes:
    """The thought that the answer follows on."""
    assert living.segment is not None
    prompt = list(living.segment.prompt)
    assert prompt[-len(CLOSE) :] == CLOSE
    return bytes(prompt[len(PROMPT) : -len(CLOSE)])


# -- a clock -----------------------------------------------------------------------------------


def test_a_clock_closes_a_thought() -> None:
    living = thought(After(2.0))
    living.start(10.0)
    assert living.wake_at == 12.0
    living.feed(Chunk([*b"abc"]), 11.0)
    assert not living.tick(11.9)
    first = living.segment
    assert not living.tick(12.0)
    assert living.segment is not first
    assert thinking(living) == b"abc"
    assert (living.outcome.end_cause, living.outcome.thought_ended_at) == (TIME, 12.0)
    assert living.outcome.thinking_tokens == living.outcome.audited_tokens == 3
    assert living.wake_at == math.inf
    living.feed(Chunk([*b"42", EOS], "stop"), 13.0)
    assert not living.tick(14.0)
    assert (living.segment, living.outcome.finish_reason) == (None, "stop")


def test_a_thought_is_closed_before_its_first_token() -> None:
    living = thought(After(2.0))
    living.start(0.0)
    living.tick(2.0)
    assert thinking(living) == b""
    assert (living.outcome.thinking_tokens, living.outcome.end_cause) == (0, TIME)
    at_once = thought(After(0.0))
    at_once.start(0.0)
    assert at_once.segment is not None
    assert (at_once.segment.number, thinking(at_once)) == (1, b"")


def test_what_came_in_time_is_kept_when_nobody_was_woken() -> None:
    living = thought(After(2.0))
    living.start(0.0)
    assert living.feed(Chunk([*b"abc"]), 3.0) == (ThoughtDelta("abc"),)
    assert thinking(living) == b"abc"


def test_a_thought_that_is_not_open_yet_cannot_be_closed() -> None:
    living = thought(After(2.0), opened_by="model")
    living.start(0.0)
    assert living.wake_at == math.inf
    assert not living.tick(9.0)
    living.feed(Chunk([ord("\n"), SINGLE.THINK, *b"ab"]), 10.0)
    assert living.wake_at == 12.0
    living.tick(12.0)
    assert living.segment is not None
    assert living.segment.prompt == [*PROMPT, ord("\n"), SINGLE.THINK, *b"ab", *CLOSE]


def test_a_budget_and_a_marker_come_before_the_clock() -> None:
    for said, cause in ((b"abcdef", "budget"), ([*b"ab", SINGLE.END_THINK], "natural")):
        living = thought(After(2.0), budget=5)
        living.start(0.0)
        living.feed(Chunk([*said]), 1.0)
        assert living.wake_at == math.inf
        living.tick(2.0)
        assert living.outcome.end_cause == cause


@given(
    said=st.lists(
        st.sampled_from(["so ", "é", "漢", "🙂", "</thi", "<tool_c", "<", "\n"]), max_size=9
    ),
    at=st.integers(0, 40),
    vocabulary=st.sampled_from([SINGLE, SPELT]),
)
def test_a_close_at_any_moment_follows_whole_characters_and_no_marker(
    said: list[str], at: int, vocabulary: ByteVocabulary
) -> None:
    text = "".join(said)
    living = thought(After(2.0), vocabulary=vocabulary)
    events = list(living.start(0.0))
    for token_id in text.encode()[:at]:
        events += living.feed(Chunk([token_id]), 1.0)
    events += living.tick(2.0)
    whole = text.encode()[:at].decode(errors="ignore")
    marking = max(overlap(whole, marker) for marker in MARKERS) if vocabulary is SPELT else 0
    kept = whole[: len(whole) - marking].encode()
    assert living.segment is not None
    assert living.segment.prompt == [*PROMPT, *kept, *compiled(vocabulary).close.ids]
    shown = "".join(event.text for event in events if isinstance(event, ThoughtDelta))
    assert shown == kept.decode().lstrip("\n")
    assert living.outcome.thinking_tokens == len(kept)


def test_a_fork_has_a_clock_of_its_own() -> None:
    class Counting:
        """Closes when it was asked for the third time."""

        def __init__(self) -> None:
            self.asked = 0

        def look(self, at: Progress) -> GoOn | Close:
            self.asked += 1
            return Close("loop") if self.asked == 3 else GoOn(tokens=len(at.thinking) + 1)

    living = thought(Counting())
    living.start(0.0)
    living.feed(Chunk([*b"a"]), 0.0)
    fork = living.fork()
    for life in (living, fork):
        life.feed(Chunk([*b"bcd"]), 0.0)
        assert (thinking(life), life.outcome.end_cause) == (b"ab", "loop")


# -- who is asked when -------------------------------------------------------------------------


class Logbook:
    """Writes down when it was asked, and waits as it is told."""

    def __init__(self, *until: GoOn) -> None:
        self._until = [*until]
        self.asked: list[tuple[int, float]] = []

    def look(self, at: Progress) -> GoOn | Close:
        self.asked.append((len(at.thinking), at.now))
        return self._until.pop(0) if self._until else Close("loop")


def test_an_exit_is_asked_when_it_wants_to_look() -> None:
    book = Logbook(GoOn(tokens=2), GoOn(clean=4), GoOn(time=7.0), GoOn(), GoOn(tokens=12))
    living = thought(book)
    living.start(0.0)
    living.feed(Chunk([*b"ab"]), 1.0)
    assert book.asked == [(0, 0.0)]
    living.feed(Chunk([*b"c.\nd\nef"]), 2.0)
    assert book.asked[1:] == [(2, 2.0), (5, 2.0)]  # not at the line end behind four tokens
    living.feed(Chunk([*b"g"]), 7.0)
    assert book.asked[3:] == [(10, 7.0)]
    living.tick(8.0)
    assert book.asked[4:] == [(10, 8.0)]
    living.tick(9.0)  # it waits for tokens alone
    assert book.asked[5:] == []
    living.feed(Chunk([*b"hijk"]), 9.0)
    assert thinking(living) == b"abc.\nd\nefghi"


def test_the_first_exit_that_closes_is_the_cause() -> None:
    at = Progress(thinking=[1, 2], coming=1)
    for exits, cause in ((("budget", "loop"), "budget"), (("loop", "budget"), "loop")):
        made = {"budget": Budget(2), "loop": Logbook()}
        assert Watch([made[name] for name in exits]).ask(at) == cause
    assert Watch([]).ask(at) is None


# -- driven ------------------------------------------------------------------------------------


class Silent(ScriptedEngine):
    """Says so much of its first request, and then nothing until it is aborted."""

    def __init__(self, says: int) -> None:
        super().__init__(say("abcdef", "42", vocabulary=SINGLE), SINGLE)
        self._says = says
        self.silent = asyncio.Event()

    async def generate(self, request: EngineRequest) -> AsyncGenerator[Chunk, None]:
        said = 0
        async with aclosing(super().generate(request)) as stream:
            async for chunk in stream:
                if len(self.requests) == 1 and said == self._says:
                    self.silent.set()
                    await asyncio.Event().wait()
                said += 1
                yield chunk


@pytest.mark.parametrize("says", [0, 3])
def test_the_alarm_closes_a_thought_whose_engine_is_silent(says: int) -> None:
    async def scenario() -> tuple[Outcome, Silent, list[Event]]:
        engine, events = Silent(says), list[Event]()
        outcome = await drive(thought(After(0.05)), engine, "r", events.append)
        assert engine.unfinished() == 0
        return outcome, engine, events

    outcome, engine, events = asyncio.run(scenario())
    assert (outcome.end_cause, outcome.thinking_tokens) == (TIME, says)
    assert engine.requests[1][0] == [*PROMPT, *b"abc"[:says], *CLOSE]
    assert "".join(event.text for event in events) == "abc"[:says] + "42"


def test_a_wake_that_closes_nothing_leaves_the_stream_alone() -> None:
    class Restless:
        def __init__(self) -> None:
            self.asked = 0

        def look(self, at: Progress) -> GoOn | Close:
            self.asked += 1
            return GoOn(time=at.now + 0.001)

    async def scenario() -> tuple[Outcome, ScriptedEngine]:
        engine = ScriptedEngine(say("abc</think>42", vocabulary=SINGLE), SINGLE, delay=0.01)
        return await drive(thought(restless), engine, "r", lambda _: None), engine

    restless = Restless()
    outcome, engine = asyncio.run(scenario())
    assert (outcome.end_cause, outcome.thinking_tokens, len(engine.requests)) == ("natural", 3, 1)
    assert restless.asked > 8


class WhenTold:
    """Closes once somebody outside has asked for it."""

    def __init__(self) -> None:
        self.told = False

    def look(self, at: Progress) -> GoOn | Close:
        return Close(TIME) if self.told else GoOn()


def test_a_signal_from_outside_closes_a_thought() -> None:
    async def scenario() -> Outcome:
        engine, exit = Silent(3), WhenTold()
        driver = Driver(thought(exit), engine, "r", lambda _: None)
        running = asyncio.create_task(driver.run())
        await engine.silent.wait()
        driver.wake()
        exit.told = True
        driver.wake()
        driver.wake()  # told twice
        return await running

    outcome = asyncio.run(scenario())
    assert (outcome.end_cause, outcome.thinking_tokens) == (TIME, 3)


@pytest.mark.parametrize("first", ["chunk", "wake"])
def test_a_chunk_on_its_way_is_not_the_answers(first: str) -> None:
    """A wake and a chunk in one turn of the loop, in either order."""

    class Gated(ScriptedEngine):
        async def generate(self, request: EngineRequest) -> AsyncGenerator[Chunk, None]:
            async with aclosing(super().generate(request)) as stream:
                async for chunk in stream:
                    if len(self.requests) == 1:
                        waiting.set()
                        await gate.wait()
                    yield chunk

    async def scenario() -> tuple[Outcome, str]:
        engine = Gated(say("abcdef", "42", vocabulary=SINGLE), SINGLE)
        exit, events = WhenTold(), list[Event]()
        driver = Driver(thought(exit), engine, "r", events.append)
        running = asyncio.create_task(driver.run())
        await waiting.wait()
        exit.told = True
        for what in (gate.set, driver.wake) if first == "chunk" else (driver.wake, gate.set):
            what()
        outcome = await running
        return outcome, "".join(event.text for event in events)

    waiting, gate = asyncio.Event(), asyncio.Event()
    outcome, shown = asyncio.run(scenario())
    assert (outcome.thinking_tokens, outcome.end_cause) == (0, TIME)
    assert shown == "42"


def test_a_driver_that_waits_for_its_alarm_can_be_cancelled() -> None:
    async def scenario() -> int:
        engine = Silent(3)
        running = asyncio.create_task(drive(thought(After(60)), engine, "r", lambda _: None))
        await engine.silent.wait()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        return engine.unfinished()

    assert asyncio.run(scenario()) == 0


def test_an_engines_own_timeout_is_no_alarm() -> None:
    class Slow(ScriptedEngine):
        async def generate(self, request: EngineRequest) -> AsyncGenerator[Chunk, None]:
            raise TimeoutError("the engine's")
            yield

    with pytest.raises(TimeoutError, match="the engine's"):
        asyncio.run(drive(thought(After(60)), Slow(say("", vocabulary=SINGLE), SINGLE), "r", print))
