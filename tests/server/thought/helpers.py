"""One thought on a scripted engine, lived to its end, with everything it showed."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

from ponder.engine.protocol import Sampling
from ponder.engine.scripted import ByteVocabulary, Script, ScriptedEngine, say
from ponder.thought.answer import AnswerDelta
from ponder.thought.budget import Plan, Source
from ponder.thought.drive import drive
from ponder.thought.errors import NoAnswerProduced
from ponder.thought.exits.exit import Exit
from ponder.thought.format import Close, CompiledFormat, ThoughtFormat
from ponder.thought.outcome import Outcome, ThoughtDelta
from ponder.thought.segment import AnswerRules
from ponder.thought.thought import Event, Thought

SINGLE = ByteVocabulary()
"""Every marker is one token."""
SPELT = ByteVocabulary(single_token_markers=False)
"""Every marker is spelt out in bytes, as many tokens as it has characters."""

SPECIAL = ByteVocabulary(special=("<|channel|>", "<|message|>", "<|end|>", "<|start|>"))
"""Harmony's markers are several tokens, special ones among them."""

EOS = ByteVocabulary.EOS
PROMPT = tuple(b"Q: ")
FORM = ThoughtFormat(name="test", tool_call="<tool_call>")
HARMONY = ThoughtFormat(
    name="harmony",
    start="<|channel|>analysis<|message|>",
    end="<|end|><|start|>assistant<|channel|>final<|message|>",
    again="<|end|><|start|>assistant<|channel|>analysis<|message|>",
    close_text="<|end|><|start|>assistant<|channel|>final<|message|>",
    skip_text="<|channel|>final<|message|>",
)


def compiled(
    vocabulary: ByteVocabulary = SINGLE,
    opened_by: Literal["template", "model"] = "template",
    form: ThoughtFormat = FORM,
) -> CompiledFormat:
    return CompiledFormat.of(form, opened_by, vocabulary)


def plan(
    budget: int,
    *,
    reserve: int = 50,
    allowance: int = 300,
    grace: int = 0,
    min_thinking: int = 0,
    max_answer: int | None = None,
    source: Source = "request",
) -> Plan:
    return Plan(
        requested=budget,
        budget=budget,
        source=source,
        allowance=allowance,
        reserve=reserve,
        grace=grace,
        min_thinking=min_thinking,
        max_answer=max_answer,
    )


@dataclass
class Life:
    """What one thought did: its engine, its outcome, its deltas, and its failure if it had one."""

    engine: ScriptedEngine
    outcome: Outcome
    deltas: list[Event] = field(default_factory=list)
    failure: NoAnswerProduced | None = None

    @property
    def reasoning(self) -> str:
        return "".join(delta.text for delta in self.deltas if isinstance(delta, ThoughtDelta))

    @property
    def content(self) -> str:
        return "".join(delta.text for delta in self.deltas if isinstance(delta, AnswerDelta))

    @property
    def prompts(self) -> list[list[int]]:
        return [prompt for prompt, _ in self.engine.requests]

    @property
    def samplings(self) -> list[Sampling]:
        return [sampling for _, sampling in self.engine.requests]

    @property
    def counts(self) -> tuple[int, int, int, int]:
        """Thinking, forced, answer, retry."""
        outcome = self.outcome
        return (
            outcome.thinking_tokens,
            outcome.forced_tokens,
            outcome.answer_tokens,
            outcome.retry_tokens,
        )


def live(
    *texts: str,
    plan: Plan,
    script: Script | None = None,
    vocabulary: ByteVocabulary = SINGLE,
    form: CompiledFormat | None = None,
    opened_by: Literal["template", "model"] = "template",
    chunk_sizes: Sequence[int] = (1,),
    sampling: Sampling | None = None,
    rules: AnswerRules | None = None,
    close: Close | None = None,
    shown_prefix: str = "",
    exits: Sequence[Exit] = (),
) -> Life:
    """Live a thought; the model says one of `texts` per request, or what `script` says."""
    engine = ScriptedEngine(
        script or say(*texts, vocabulary=vocabulary), vocabulary, chunk_sizes=chunk_sizes
    )
    thought = Thought(
        vocabulary,
        form or compiled(vocabulary, opened_by),
        prompt=PROMPT,
        plan=plan,
        sampling=sampling or Sampling(max_tokens=1),
        rules=rules or AnswerRules(),
        close=close,
        shown_prefix=shown_prefix,
        exits=exits,
    )
    life = Life(engine, thought.outcome)
    try:
        asyncio.run(drive(thought, engine, "r", life.deltas.append))
    except NoAnswerProduced as error:
        life.failure = error
    assert engine.unfinished() == 0
    return life


def tokens(*requests: Sequence[int]) -> Script:
    """A script of token ids, one sequence per request; the last one repeats."""

    def script(_prompt: Sequence[int], number: int) -> Iterator[int]:
        return iter(requests[min(number, len(requests) - 1)])

    return script
