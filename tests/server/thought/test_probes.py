"""Probes run beside a thought, change nothing that it samples, and are counted to the token."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ponder.engine.protocol import FORBIDDEN, Chunk, EngineError, Sampling
from ponder.engine.scripted import ByteVocabulary, ScriptedEngine
from ponder.thought.drive import drive
from ponder.thought.exits.agreement import Agreement
from ponder.thought.exits.answers import NORMALISERS, agreeing
from ponder.thought.exits.entropy import Entropy
from ponder.thought.exits.exit import Exit, Found
from ponder.thought.outcome import InterimAnswer
from ponder.thought.probes import BLOCK
from ponder.thought.segment import AnswerRules
from ponder.thought.thought import Thought
from server.thought.helpers import EOS, PROMPT, SINGLE, SPELT, Life, compiled, plan

CLOSE = list(compiled().close.ids)
THOUGHT = b"".join(b"step %d. " % n for n in range(200))


def agreement(interval: int = 32, window: int = 3, **more: object) -> Agreement:
    return Agreement(interval=interval, window=window, max_tokens=16, **more)  # type: ignore[arg-type]


def thought(
    *exits: Exit,
    budget: int = 1000,
    vocabulary: ByteVocabulary = SINGLE,
    rules: AnswerRules | None = None,
    **more: object,
) -> Thought:
    return Thought(
        vocabulary,
        compiled(vocabulary),
        prompt=PROMPT,
        plan=plan(budget, allowance=2000),
        sampling=Sampling(max_tokens=1, **more),  # type: ignore[arg-type]
        rules=rules or AnswerRules(),
        exits=exits,
    )


def live(engine: ScriptedEngine, *exits: Exit, budget: int = 1000, **more: object) -> Life:
    living = thought(*exits, budget=budget, **more)  # type: ignore[arg-type]
    life = Life(engine, living.outcome)
    asyncio.run(drive(living, engine, "r", life.deltas.append))
    assert engine.unfinished() == 0
    return life


class Model:
    """Thinks `said`; once it is closed it says one answer after the other, and then `settled`.

    The first answer fails with `broken`, where that is given.
    """

    def __init__(
        self,
        said: bytes,
        answers: Sequence[str] = (),
        settled: str = "42",
        broken: Exception | None = None,
    ) -> None:
        self._said = [*said]
        self._answers = list(answers)
        self._settled = settled
        self._broken = broken

    def __call__(self, prompt: Sequence[int], _number: int) -> Iterator[int]:
        if list(prompt[-len(CLOSE) :]) != CLOSE:
            yield from self._said[len(prompt) - len(PROMPT) :]
            yield from (SINGLE.END_THINK, *b"the end", EOS)
            return
        if self._broken is not None:
            broken, self._broken = self._broken, None
            raise broken
        yield from (self._answers.pop(0) if self._answers else self._settled).encode()
        yield EOS


def interim(life: Life) -> list[InterimAnswer]:
    return [event for event in life.deltas if isinstance(event, InterimAnswer)]


# -- what a probe asks -------------------------------------------------------------------------


def test_a_probe_closes_what_is_thought_at_a_block_and_answers_greedily() -> None:
    living = thought(agreement(40), temperature=0.7, cache_salt="s", logit_bias={7: 2.0})
    living.start(0.0)
    living.feed(Chunk([*THOUGHT[:39]]), 0.0)
    assert living.probes == ()
    living.feed(Chunk([*THOUGHT[39:90]]), 0.0)
    (probe,) = living.probes
    kept = BLOCK - len(PROMPT)
    assert probe.prompt == [*PROMPT, *THOUGHT[:kept], *CLOSE]
    assert (probe.tokens, probe.number) == (kept, 0)
    sampling = probe.sampling
    assert (sampling.temperature, sampling.max_tokens, sampling.cache_salt) == (0.0, 16, "s")
    assert sampling.logit_bias == {7: 2.0, SINGLE.THINK: FORBIDDEN, SINGLE.END_THINK: FORBIDDEN}


def test_a_thought_shorter_than_a_block_is_probed_whole() -> None:
    living = thought(agreement(8))
    living.start(0.0)
    living.feed(Chunk([*THOUGHT[:10]]), 0.0)
    assert [probe.tokens for probe in living.probes] == [8]


def test_a_probe_ends_in_a_whole_character() -> None:
    said = ("a" * (BLOCK - len(PROMPT) - 1) + "漢字" * 20).encode()
    living = thought(agreement(48))
    living.start(0.0)
    living.feed(Chunk([*said]), 0.0)
    (probe,) = living.probes
    assert bytes(probe.prompt[len(PROMPT) : -len(CLOSE)]).decode()
    assert probe.tokens == BLOCK - len(PROMPT) - 1


def test_a_prefix_stands_in_for_the_contracts() -> None:
    living = thought(agreement(prefix=tuple(b"So: ")))
    living.start(0.0)
    living.feed(Chunk([*THOUGHT[:40]]), 0.0)
    assert living.probes[0].prompt[-4 - len(CLOSE) :] == [*CLOSE, *b"So: "]


def test_a_probe_has_the_room_that_an_answer_would_have() -> None:
    living = Thought(
        SINGLE,
        compiled(),
        prompt=PROMPT,
        plan=plan(64, allowance=64 + len(CLOSE) + 4, reserve=4),
        sampling=Sampling(max_tokens=1),
        rules=AnswerRules(),
        exits=[agreement(61)],
    )
    living.start(0.0)
    living.feed(Chunk([*THOUGHT[:62]]), 0.0)
    (probe,) = living.probes
    assert probe.tokens == 61 and probe.sampling.max_tokens == 64 + 4 - 61


def test_a_probe_goes_on_from_all_that_precedes_the_thought() -> None:
    """Here a marker that the model wrote, an earlier block, and an answer between the two."""
    said = [*b"why", SINGLE.END_THINK, *b"so ", SINGLE.THINK, *THOUGHT[:90]]
    living = thought(agreement(64))
    living.start(0.0)
    living.feed(Chunk(said), 0.0)
    (probe,) = living.probes
    whole = [*PROMPT, *said]
    kept = len(probe.prompt) - len(CLOSE)
    assert probe.prompt == [*whole[:kept], *CLOSE]
    assert kept % BLOCK == 0
    assert probe.tokens == kept - len(PROMPT) - len(said) + 90 + len(b"why")


def test_one_probe_at_a_time() -> None:
    living = thought(agreement())
    living.start(0.0)
    living.feed(Chunk([*THOUGHT[:200]]), 0.0)
    (probe,) = living.probes
    living.feed_probe(probe, Chunk([*b"1", EOS], "stop"), 0.0)
    assert living.probes == ()
    living.feed(Chunk([*THOUGHT[200:240]]), 0.0)
    assert [probe.number for probe in living.probes] == [1]


def test_a_least_thought_is_not_probed_before() -> None:
    living = thought(agreement(after=100))
    living.start(0.0)
    living.feed(Chunk([*THOUGHT[:100]]), 0.0)
    assert living.probes == ()
    living.feed(Chunk([*THOUGHT[100:101]]), 0.0)
    assert len(living.probes) == 1


# -- what becomes of it ------------------------------------------------------------------------


@given(
    moves=st.lists(st.tuples(st.booleans(), st.integers(1, 60)), min_size=5, max_size=60),
    answers=st.lists(st.sampled_from(["1", "2", "", "  3."]), min_size=1, max_size=8),
    length=st.integers(0, 700),
    vocabulary=st.sampled_from([SINGLE, SPELT]),
)
def test_no_timing_changes_what_is_sampled_or_how_it_is_counted(
    moves: list[tuple[bool, int]], answers: list[str], length: int, vocabulary: ByteVocabulary
) -> None:
    """A thought and its probes are fed in turn, tokens at a time, as moves say."""
    said = [*THOUGHT[:length], *vocabulary.encode("</think>"), *b"so", EOS]
    living = thought(agreement(window=2), vocabulary=vocabulary)
    living.start(0.0)
    first = living.segment
    assert first is not None
    probed, read, waiting = 0, 0, {}
    for main, size in moves:
        if main and living.segment is first and read < len(said):
            part = said[read : read + size]
            read += len(part)
            living.feed(Chunk(part, "stop" if read == len(said) else None), 0.0)
        for probe in living.probes:
            if probe not in waiting:
                answer = answers[probe.number % len(answers)]
                waiting[probe] = [*answer.encode(), EOS]
        if not main and living.probes:
            probe = living.probes[0]
            part, waiting[probe] = waiting[probe][:size], waiting[probe][size:]
            probed += len(part)
            living.feed_probe(probe, Chunk(part, None if waiting[probe] else "stop"), 0.0)
    outcome = living.outcome
    assert outcome.probe_tokens == probed
    assert outcome.completion_tokens == outcome.bounded_tokens + probed
    assert len(first.sampled) <= read  # whatever was probed, the request is as it began
    assert list(first.prompt) == list(PROMPT)
    for probe in waiting:
        kept = probe.prompt[len(PROMPT) : len(PROMPT) + probe.tokens]
        assert kept == [*THOUGHT[: probe.tokens]]
        assert (len(PROMPT) + probe.tokens) % BLOCK == 0
    if outcome.end_cause == "agreement":
        assert living.probes == () and living.segment is not first
        assert outcome.thinking_tokens == outcome.audited_tokens <= length
    elif outcome.thought_ended_at is not None:
        assert outcome.end_cause == "natural" and outcome.thinking_tokens == length
    if outcome.ended_at is None:
        spent = sum(len(made.sampled) for made in living._requests.made)
        assert living.spent_tokens == spent + outcome.forced_tokens + probed


def test_answers_that_agree_close_the_thought() -> None:
    engine = ScriptedEngine(Model(THOUGHT, ["41", "42"]), SINGLE)
    life = live(engine, agreement())
    assert life.outcome.end_cause == "agreement"
    assert life.content == "42"
    assert [answer.text for answer in interim(life)] == ["41", "42", "42", "42"]
    assert life.outcome.probe_tokens == 4 * len("42") + 4
    assert THOUGHT.decode().startswith(life.reasoning)
    assert len(life.reasoning) == life.outcome.thinking_tokens == life.outcome.audited_tokens
    positions = [answer.thinking_tokens for answer in interim(life)]
    assert [(len(PROMPT) + at) % BLOCK for at in positions] == [0] * 4


@pytest.mark.parametrize("chunks", [(1,), (7, 1), (64,)])
@pytest.mark.parametrize("rules", [AnswerRules(), AnswerRules(min_tokens=2)])
def test_answers_that_never_agree_change_nothing(
    chunks: tuple[int, ...], rules: AnswerRules
) -> None:
    answers = [str(n) for n in range(100)]
    plain = live(ScriptedEngine(Model(THOUGHT[:300]), SINGLE, chunk_sizes=chunks), rules=rules)
    probed = live(
        ScriptedEngine(Model(THOUGHT[:300], answers), SINGLE, chunk_sizes=chunks),
        agreement(),
        rules=rules,
    )
    assert (probed.reasoning, probed.content) == (plain.reasoning, plain.content)
    assert probed.counts == plain.counts
    assert probed.outcome.end_cause == "natural"
    asked = [request for request in probed.engine.requests if request[1].temperature]
    assert asked == plain.engine.requests


def test_a_probe_that_the_engine_fails_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    engine = ScriptedEngine(Model(THOUGHT, broken=EngineError("no")), SINGLE)
    life = live(engine, agreement())
    assert (life.outcome.end_cause, life.outcome.failed_probes) == ("agreement", 1)
    assert "the probe r-probe-0 failed: no" in caplog.text


def test_a_fault_that_nobody_expected_is_raised() -> None:
    engine = ScriptedEngine(Model(THOUGHT[:100], broken=ZeroDivisionError()), SINGLE)
    with pytest.raises(ZeroDivisionError):
        live(engine, agreement(64))
    assert engine.unfinished() == 0


@pytest.mark.parametrize("end", ["thought", "cancelled"])
def test_whatever_ends_a_thought_ends_its_probes(end: str) -> None:
    """The probe's engine never speaks; the thought's does."""
    reached = asyncio.Event()

    class Silent(ScriptedEngine):
        async def generate(self, request):  # type: ignore[no-untyped-def]
            if "probe" in request.id:
                self._running.add(request.id)
                try:
                    reached.set()
                    await asyncio.Event().wait()
                finally:
                    self._running.discard(request.id)
            async for chunk in super().generate(request):
                yield chunk
                if end == "cancelled" and reached.is_set():
                    await asyncio.Event().wait()

    async def run() -> Thought:
        engine = Silent(Model(THOUGHT[:200]), SINGLE)
        living = thought(agreement())
        task = asyncio.create_task(drive(living, engine, "r", lambda _: None))
        await reached.wait()
        if end == "cancelled":
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        else:
            await task
        assert engine.unfinished() == 0
        return living

    living = asyncio.run(run())
    assert living.outcome.probe_tokens == 0
    assert living.outcome.probes == 1


def test_a_certain_answer_closes_the_thought() -> None:
    certain = Entropy(interval=32, window=3, alpha=0.2, delta=1e-3, alternatives=20)
    engine = ScriptedEngine(Model(THOUGHT), SINGLE)
    life = live(engine, certain)
    assert life.outcome.end_cause == "entropy"
    probes = [sampling for _, sampling in engine.requests if not sampling.temperature]
    assert {(probe.max_tokens, probe.logprobs) for probe in probes} == {(1, 20)}
    assert life.outcome.probe_tokens == len(probes) == 3


def test_an_answer_that_moves_closes_none() -> None:
    moving = Entropy(interval=8, window=2, alpha=0.5, delta=0.01, alternatives=2)
    for number in range(50):
        moving._take(float(number % 2))
        assert moving.seen < 2 or moving.variance >= 0.01
    moving._take(moving.mean)
    for _ in range(20):
        moving._take(moving.mean)
    assert moving.variance < 0.01


@given(at=st.integers(0, 300), chunk=st.integers(1, 40))
def test_a_fork_keeps_what_its_exits_know(at: int, chunk: int) -> None:
    living = thought(agreement(window=100))
    living.start(0.0)
    living.feed(Chunk([*THOUGHT[:at]]), 0.0)
    fork = living.fork()
    for life in (living, fork):
        for start in range(at, 400, chunk):
            life.feed(Chunk([*THOUGHT[start : start + chunk]]), 0.0)
    assert [probe.prompt for probe in fork.probes] == [probe.prompt for probe in living.probes]
    for life in (living, fork):
        for probe in life.probes:
            life.feed_probe(probe, Chunk([EOS], "stop"), 0.0)
        assert life.outcome.probe_tokens == 1


# -- what an answer says -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("way", "text", "whole", "said"),
    [
        ("number", "The answer is 33.", True, "33"),
        ("number", "1,250.50 euros", True, "1250.5"),
        ("number", "it is \u22120.0", True, "0"),
        ("number", "-007", True, "-7"),
        ("number", "3/4", True, "3/4"),
        ("number", "100", True, "100"),
        ("number", "first 3, then 12", False, "3"),
        ("number", "12", False, ""),
        ("number", "none", True, ""),
        ("letter", "The answer is (B).", True, "B"),
        ("letter", "b", True, ""),
        ("letter", "I think C", True, "C"),
        ("exact", "\n  The  answer is Paris.\nBecause", True, "the answer is paris"),
        ("exact", "  \n", True, ""),
        ("json", ' {"b": [1, 2],\n "a": null}', True, '{"a": null, "b": [1, 2]}'),
        ("json", '{"b": [1, 2', False, ""),
        ("json", "[" * 100_000, True, ""),
    ],
)
def test_answers_that_say_the_same_are_equal(way: str, text: str, whole: bool, said: str) -> None:
    assert NORMALISERS[way](Found(9, text, whole)) == said


def test_agreement_is_of_the_last_answers() -> None:
    assert agreeing([]) == agreeing(["1", ""]) == 0
    assert agreeing(["1"]) == agreeing(["1", "2"]) == agreeing(["2", "", "2"]) == 1
    assert agreeing(["1", "2", "2", "2"]) == 3
