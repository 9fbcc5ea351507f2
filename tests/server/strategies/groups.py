"""Several thoughts on a scripted engine, lived to their one answer, and what always holds then."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from ponder.checkpoint.chat import Prompt
from ponder.engine.protocol import Sampling
from ponder.engine.scripted import ByteVocabulary, ScriptedEngine
from ponder.protocol.fields import StrategyAsk
from ponder.protocol.response import StrategyReport
from ponder.server.strategies.group import Group
from ponder.server.strategies.place import PARTS, Home
from ponder.server.strategies.protocol import Score
from ponder.thought.answer import AnswerDelta
from ponder.thought.errors import NoAnswerProduced
from ponder.thought.exits.exit import Exit
from ponder.thought.outcome import Outcome, ThoughtDelta
from ponder.thought.pace import Pace
from ponder.thought.segment import AnswerRules
from ponder.thought.thought import Event, Thought
from server.thought.helpers import EOS, PROMPT, SINGLE, SPELT, compiled, plan


class Model:
    """Its n-th thought begins with the n-th capital, and is one of `thoughts`; then it is answered.

    A length is a thought of as many capitals. A thought that is gone on from, a copy too, goes on
    as it began.
    """

    def __init__(
        self,
        thoughts: Sequence[int | str],
        answers: Sequence[str],
        vocabulary: ByteVocabulary = SINGLE,
        *,
        opens: bool = False,
    ) -> None:
        capitals = [chr(ord("A") + place) for place in range(len(thoughts))]
        self._thoughts = [
            vocabulary.encode(capital * thought if isinstance(thought, int) else capital + thought)
            for capital, thought in zip(capitals, thoughts, strict=True)
        ]
        self._answers = answers
        self._end = vocabulary.encode("</think>")
        self._opens = vocabulary.encode("<think>") if opens else []
        self._begun = 0

    def __call__(self, prompt: Sequence[int], _number: int) -> Iterator[int]:
        said, opens = [*prompt[len(PROMPT) :]], self._opens
        if said[: len(opens)] == opens:
            said = said[len(opens) :]
        else:  # an opening may be gone on from, too
            yield from opens[len(said) :]
            said = []
        self._begun += not said
        place = self._begun - 1
        if said and 0 <= said[0] - ord("A") < len(self._thoughts):
            place = said[0] - ord("A")
        answer = [*self._answers[place].encode(), EOS]
        if said and said[-len(CLOSE) :] in (CLOSE, SPELT_CLOSE):
            yield from answer
            return
        whole = [*self._thoughts[place], *self._end, *answer]
        yield from whole[len(said) :]


CLOSE = list(compiled().close.ids)
SPELT_CLOSE = list(compiled(SPELT).close.ids)


@dataclass
class Said:
    """What a group came to."""

    outcome: Outcome
    report: StrategyReport
    engine: ScriptedEngine
    events: list[Event] = field(default_factory=list)
    failure: NoAnswerProduced | None = None

    @property
    def answer(self) -> str:
        return "".join(event.text for event in self.events if isinstance(event, AnswerDelta))

    @property
    def thought(self) -> str:
        return "".join(event.text for event in self.events if isinstance(event, ThoughtDelta))

    @property
    def thinking(self) -> list[int]:
        return [answer.thinking_tokens for answer in self.report.answers]

    @property
    def causes(self) -> list[str]:
        return [answer.end_cause for answer in self.report.answers]


def think(
    thoughts: Sequence[int | str],
    answers: Sequence[str],
    budget: int,
    *,
    method: str = "self_consistency",
    script: Callable[[Sequence[int], int], Iterator[int]] | None = None,
    chunk_sizes: Sequence[int] = (1,),
    opened_by: Literal["template", "model"] = "template",
    score: Score | None = None,
    seed: int | None = 0,
    exits: Sequence[Exit] = (),
    beside: Callable[[Group], Awaitable[None]] | None = None,
    allowance: int = 2000,
    engine: type[ScriptedEngine] = ScriptedEngine,
    vocabulary: ByteVocabulary = SINGLE,
    **asked: Any,
) -> Said:
    """Live a group on a scripted engine; `beside` runs beside it."""
    model = script or Model(thoughts, answers, vocabulary, opens=opened_by == "model")
    playing = engine(model, vocabulary, chunk_sizes=chunk_sizes)
    form = compiled(vocabulary, opened_by)
    shared = plan(budget, allowance=allowance)
    prompt = Prompt([*PROMPT], shared, form, form.close)
    ask = StrategyAsk.model_validate({"method": method, "n": len(thoughts), **asked})
    events: list[Event] = []

    def make(number: int, more: Sequence[Exit]) -> Thought:
        sampling = Sampling(max_tokens=1, seed=None if seed is None else seed + number)
        return Thought(
            *(vocabulary, form),
            prompt=PROMPT,
            plan=shared,
            sampling=sampling,
            rules=AnswerRules(),
            exits=[*more, *exits],
        )

    async def live() -> tuple[Group, NoAnswerProduced | None]:
        home = Home(playing, "r", Pace())
        group = Group(
            *(ask, prompt, home, make, events.append),
            vocabulary=vocabulary,
            score=score,
            seed=seed,
        )
        task = asyncio.create_task(group.live())
        if beside is not None:
            await beside(group)
        return group, await task

    group, failure = asyncio.run(live())
    assert playing.unfinished() == 0
    said = Said(group.outcome, group.report(), playing, events, failure)
    counted(said, group)
    if tuple(chunk_sizes) == (1,) and engine is ScriptedEngine and script is None:
        single = vocabulary is SINGLE and all(str(thought).isascii() for thought in thoughts)
        exactly(said, 1 if single else len("</think>"))
    return said


def counted(said: Said, group: Group) -> None:
    """What holds however it went."""
    outcome, report = said.outcome, said.report
    assert outcome.thinking_tokens <= report.token_budget
    assert outcome.audited_tokens == outcome.thinking_tokens
    for part in PARTS:
        assert getattr(outcome, part) == sum(getattr(row, part) for row in report.answers)
        assert all(getattr(row, part) >= 0 for row in report.answers)
    assert outcome.completion_tokens == group.spent_tokens
    if said.failure is None:
        assert said.answer == report.answers[report.chosen].answer


def exactly(said: Said, most: int) -> None:
    """Every token that was sampled is counted once.

    All but those that a close drops: of each thought the token that was one too many, or the part
    of a character or of a marker that waited then.
    """
    sampled = sum(map(len, said.engine.outputs))
    dropped = sampled - (said.outcome.completion_tokens - said.outcome.forced_tokens)
    closed = sum(row.forced_tokens > 0 for row in said.report.answers)
    assert 0 <= dropped <= closed * most
