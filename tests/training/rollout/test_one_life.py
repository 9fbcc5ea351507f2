"""Serving, rollouts and evaluation cut the same sampled tokens at the same place."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import cycle, islice
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ponder.engine.protocol import Chunk, Sampling
from ponder.engine.scripted import ByteVocabulary, ScriptedEngine
from ponder.engine.tokenizer import HFTokenizer, ModelFiles
from ponder.evaluation.protocol import Ask
from ponder.evaluation.responders.local import LocalResponder
from ponder.experiment.holdout import Assignment
from ponder.protocol.dialects.chat import ChatCompletionRequest
from ponder.server.completion import Completion
from ponder.server.model import ServedModel
from ponder.server.settings import BUNDLED_MODEL, Settings
from ponder.tasks.problems import Problem
from ponder.thought.budget import Limits, Plan
from ponder.thought.exits.agreement import Agreement
from ponder.thought.format import CompiledFormat, ThoughtFormat
from ponder.thought.segment import AnswerRules
from ponder.thought.thought import Thought
from ponder.training.rollout.drive import Life
from ponder.training.rollout.plans import Prompt, Reader, truncated

QUESTION = "What is 1 + 2?"
TEXTS = (" and", " so", ".", "\n", " 3.14", "ß", "漢", "🙂")  # of one to four tokens each
ANSWER_TOKENS = 20


@cache
def model() -> ServedModel:
    return ServedModel.load(ModelFiles.find(BUNDLED_MODEL), Settings())


def tokenizer() -> HFTokenizer:
    return model().tokenizer


@dataclass(frozen=True)
class Case:
    """What a model samples into its thought, and the budget that it is asked under."""

    thought: list[int]
    budget: int
    hinted: bool
    grace: int | None

    def script(self, _prompt: Sequence[int], number: int) -> Iterator[int]:
        answer = [*tokenizer().encode("It is 3."), min(tokenizer().eos_token_ids)]
        if number == 0:
            yield from self.thought
        yield from answer

    def engine(self) -> ScriptedEngine:
        (filler,) = tokenizer().encode(" and")
        return ScriptedEngine(self.script, tokenizer(), max_model_len=1024, masked_token=filler)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    texts = draw(st.lists(st.sampled_from(TEXTS), max_size=70))
    thought = [token for text in texts for token in tokenizer().encode(text)]
    end = tokenizer().encode("</think>")
    endless = tokenizer().encode(" and") * 120
    ends = draw(st.sampled_from([end, [min(tokenizer().eos_token_ids)], endless]))
    return Case(
        thought=[*thought, *ends],
        budget=draw(st.integers(1, 90)),
        hinted=draw(st.booleans()),
        grace=draw(st.sampled_from([None, None, 0, 12])),
    )


@dataclass(frozen=True)
class Seen:
    """The prompt, what the answer goes on from, and the tokens of the thought."""

    prompt: list[int]
    kept: list[int]
    close: list[int]
    thinking_tokens: int


def lived(engine: ScriptedEngine, thinking_tokens: int) -> Seen:
    """What an engine's requests say: two of them where the thought was closed, else one."""
    prompt, *rest = (list(asked) for asked, _ in engine.requests)
    if not rest:
        (end,) = tokenizer().encode("</think>")
        sampled = engine.outputs[0]
        return Seen(prompt, sampled[: sampled.index(end) + 1], [], thinking_tokens)
    compiled = model().checkpoint.compiled
    assert compiled is not None
    close = list(compiled.close.ids)
    assert rest[0][-len(close) :] == close
    return Seen(prompt, rest[0][len(prompt) : -len(close)], close, thinking_tokens)


def served(case: Case) -> Seen:
    options: dict[str, object] = {"hint": case.hinted}
    if case.grace is not None:
        options["grace_tokens"] = case.grace
    body = {
        "messages": [{"role": "user", "content": QUESTION}],
        "thinking_token_budget": case.budget,
        "ponder": options,
    }
    request, engine = ChatCompletionRequest.model_validate(body), case.engine()
    limits = Limits(max_model_len=engine.facts.max_model_len)
    assignment = Assignment(None, "policy")
    completion = Completion(request.neutral({}), model(), engine, limits, assignment)
    asyncio.run(completion.run(lambda *_: None))
    return lived(engine, completion.outcomes[0].thinking_tokens)


def evaluated(case: Case) -> Seen:
    engine = case.engine()
    responder = LocalResponder(Path(BUNDLED_MODEL), lambda: engine)
    ask = Ask(QUESTION, 1, (case.budget,), "served" if case.hinted else None)
    ((reply,),) = asyncio.run(responder.answer([ask], lambda _: None))
    assert reply.thinking_tokens is not None
    return lived(engine, reply.thinking_tokens)


def rolled_out(case: Case, prompt: list[int]) -> Seen | None:
    """None where the text ended inside the thought: a rollout has no answer then."""

    def sampler(
        prompts: Sequence[Sequence[int]], noise_BT: torch.Tensor, stop_ids: frozenset[int]
    ) -> list[list[int]]:
        written = []
        for number, asked in enumerate(prompts):
            ids: list[int] = []
            for token_id in case.script(asked, number):
                ids.append(token_id)
                if token_id in stop_ids or len(ids) == noise_BT.shape[1]:
                    break
            written.append(ids)
        return written

    problem = Problem("test:a", "test", 1, QUESTION, "3")
    (found,) = truncated(
        [Prompt(problem, tuple(prompt), "a")],
        1,
        sampler,
        Reader(model().checkpoint),
        budgets=(case.budget, 2 * case.budget),
        summaries=2,
        summary_tokens=ANSWER_TOKENS,
        grace=case.grace,
    )
    cut = found.cuts[0]
    if cut is None:
        return None
    kept, close = list(found.sampled[: cut.kept]), list(cut.close)
    return Seen(prompt, kept, close, len(kept) - (not close))


@given(cases())
def test_the_cut_is_the_same(case: Case) -> None:
    serving = served(case)
    if case.grace is None:
        assert evaluated(case) == serving
    rollout = rolled_out(case, serving.prompt)
    if rollout is None:
        assert set(case.thought) & tokenizer().eos_token_ids
        assert serving.close and serving.thinking_tokens < case.budget
    else:
        assert rollout == serving


@settings(max_examples=20)
@given(before=st.integers(0, 100), period=st.integers(1, 128))
def test_a_loop_is_closed_where_it_is_served_and_not_in_a_rollout(before: int, period: int) -> None:
    """What serving stops, training has to see."""
    ids = [*range(300, 300 + max(before, period))]
    thought = [*ids[:before], *islice(cycle(ids[:period]), 1600)]
    case = Case(thought, budget=900, hinted=True, grace=0)
    serving = served(case)
    assert evaluated(replace(case, grace=None)) == serving
    found = max(256, before + max(64, 3 * period)) + 16
    assert 256 <= serving.thinking_tokens <= found + 2 * period
    assert serving.kept == thought[: serving.thinking_tokens]
    rollout = rolled_out(case, serving.prompt)
    assert rollout is not None
    assert rollout.thinking_tokens == case.budget


@given(cases())
def test_the_grace_decides(case: Case) -> None:
    """The cut lies inside the budget, and without a grace as late as whole characters allow."""
    seen = served(case)
    assert seen.thinking_tokens <= case.budget
    if seen.close and case.grace == 0 and not set(case.thought) & tokenizer().eos_token_ids:
        assert seen.thinking_tokens > case.budget - 4


def test_a_batch_refuses_what_would_have_to_run_beside_it() -> None:
    vocabulary = ByteVocabulary()
    life = Life(
        Thought(
            vocabulary,
            CompiledFormat.of(ThoughtFormat(name=""), "template", vocabulary),
            prompt=(1, 2, 3),
            plan=Plan(requested=90, budget=90, source="request", allowance=200, reserve=9),
            sampling=Sampling(max_tokens=1),
            rules=AnswerRules(),
            exits=[Agreement(interval=32, window=2, max_tokens=8)],
        )
    )
    life.thought.start(0.0)
    with pytest.raises(NotImplementedError, match="no exit that asks for probes"):
        life.feed(Chunk([*b"x" * 40, vocabulary.END_THINK], None))
