"""A thought without an engine: fed tokens, it says what to sample next."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from ponder.engine.protocol import Chunk, Sampling
from ponder.thought.answer import AnswerDelta
from ponder.thought.outcome import ThoughtDelta
from ponder.thought.segment import AnswerRules
from ponder.thought.thought import Event, Thought
from server.thought.helpers import EOS, PROMPT, SINGLE, compiled, plan

CLOSE = compiled().close.ids


def thought(budget: int, *, apart: bool = False) -> Thought:
    return Thought(
        SINGLE,
        compiled(),
        prompt=PROMPT,
        plan=plan(budget),
        sampling=Sampling(max_tokens=1),
        rules=AnswerRules(),
        apart=apart,
    )


def said(events: Sequence[Event], kind: type[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, kind))


def test_a_life_is_a_row_of_requests() -> None:
    living = thought(5)
    assert living.segment is None
    assert not living.start(1.0)
    first = living.segment
    assert first is not None
    assert (first.number, first.prompt, first.sampling.max_tokens) == (0, PROMPT, 300)
    assert living.feed(Chunk([*b"0123"]), 2.0) == (ThoughtDelta("0123"),)
    assert living.segment is first
    assert said(living.feed(Chunk([*b"456"]), 3.0), ThoughtDelta) == "4"
    second = living.segment
    assert second is not None and second is not first
    assert (second.number, second.prompt) == (1, [*PROMPT, *b"01234", *CLOSE])
    assert said(living.feed(Chunk([*b"42", EOS], "stop"), 4.0), AnswerDelta) == "42"
    assert living.segment is None
    outcome = living.outcome
    assert (outcome.first_token_at, outcome.thought_ended_at) == (2.0, 3.0)
    assert (outcome.first_answer_at, outcome.ended_at) == (4.0, 4.0)


def test_a_thought_apart_is_a_request_of_its_own() -> None:
    living = thought(5, apart=True)
    living.start(0.0)
    assert living.segment is not None
    assert SINGLE.END_THINK in living.segment.sampling.stop_token_ids
    living.feed(Chunk([*b"ab", SINGLE.END_THINK], "stop"), 0.0)
    assert living.segment.prompt == [*PROMPT, *b"ab", SINGLE.END_THINK]
    assert not living.segment.sampling.stop_token_ids


@given(
    whole=st.text("ab \n漢é.", min_size=1, max_size=30),
    at=st.integers(0, 60),
    budget=st.integers(1, 20),
    other=st.text("xyz", max_size=5),
)
def test_a_fork_lives_on_alone(whole: str, at: int, budget: int, other: str) -> None:
    """Wherever it forks, both lives go on as one that never did."""
    ids = [*whole.encode(), SINGLE.END_THINK, *b"answer", EOS]
    living, alone = thought(budget), thought(budget)
    for life in (living, alone):
        life.start(0.0)
    for token_id in ids[:at]:
        for life in (living, alone):
            if life.segment is not None:
                life.feed(Chunk([token_id], "stop" if token_id == EOS else None), 0.0)
    fork = living.fork()
    for token_id in other.encode():
        if fork.segment is not None:
            fork.feed(Chunk([token_id]), 0.0)
    for token_id in ids[at:]:
        for life in (living, alone):
            if life.segment is not None:
                life.feed(Chunk([token_id], "stop" if token_id == EOS else None), 0.0)
    assert living.outcome == alone.outcome
    assert (living.segment is None) == (alone.segment is None)
    if living.segment is not None and alone.segment is not None:
        assert living.segment.prompt == alone.segment.prompt
