"""Samples responses and thoughts for prompts, without a budget or cut at several.

Thoughts are parsed, cut and closed by the server's own code, with its close text and its grace
(`ponder.thought`), so that training and serving agree.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from ponder.checkpoint.chat import Prompt as PlannedPrompt
from ponder.checkpoint.checkpoint import Checkpoint
from ponder.engine.protocol import Chunk, Sampling
from ponder.tasks.problems import Problem
from ponder.thought.budget import Ask, Limits, resolve

from ..method.batch import Prompt
from .drive import Life, Rounds, Sampler, advance, pull, uniforms

Hint = tuple[int | None, tuple[int, ...]]  # the budget that it promises, and its tokens


@dataclass(frozen=True, slots=True)
class Response:
    """One sampled response: the model wrote `sampled` behind the forced tokens `hint`.

    `formatted`: the model closed its thought, and its answer ended by itself within the limit.
    `answer` is the text after the thought.
    """

    prompt: Prompt
    hint: tuple[int, ...]
    budget: int | None
    sampled: tuple[int, ...]
    thinking_tokens: int
    formatted: bool
    answer: str


@dataclass(frozen=True, slots=True)
class Cut:
    """A thought cut by a budget: its first `kept` tokens, then `close` if the cut ended it."""

    kept: int
    close: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Summary:
    """An answer sampled after a cut, and whether it ended by itself."""

    sampled: tuple[int, ...]
    formatted: bool
    answer: str


@dataclass(frozen=True, slots=True)
class Truncated:
    """One thought and its summaries at every budget.

    `sampled` ends with the end marker if the thought ended by itself. `cuts[j]` is the cut at
    budget j, None where the model ended its text instead of its thought; `summaries[j]` answer it.
    Budgets with the same cut have separate summaries.
    """

    prompt: Prompt
    sampled: tuple[int, ...]
    thinking_tokens: int
    cuts: tuple[Cut | None, ...]
    summaries: tuple[tuple[Summary, ...], ...]


class Reader:
    """Turns problems into a checkpoint's prompts, and starts thoughts behind them.

    `instruction` follows every question directly, `system_prompt` precedes it.
    """

    def __init__(
        self, checkpoint: Checkpoint, system_prompt: str | None = None, instruction: str = ""
    ) -> None:
        form = checkpoint.compiled
        if form is None:
            raise ValueError("training needs a checkpoint that thinks, and this one does not")
        self._checkpoint = checkpoint
        self._opening = [{"role": "system", "content": system_prompt}] if system_prompt else []
        self._instruction = instruction
        self.tokenizer = checkpoint.tokenizer
        self.form = replace(form, opened_by="template")
        self.end_tokens = len(self.tokenizer.encode(form.end.text))

    @property
    def directory(self) -> Path:
        """The directory of the checkpoint's files."""
        return self._checkpoint.files.directory

    def prompt(self, problem: Problem, key: str) -> Prompt:
        tools = {"tools": list(problem.tools)} if problem.tools else {}
        asked = {"role": "user", "content": problem.question + self._instruction}
        ids = self._checkpoint.opened([*self._opening, asked], tools)
        return Prompt(problem, tuple(ids), key)

    def text(self, sampled: Sequence[int]) -> str:
        return self.tokenizer.decode(sampled)

    def closes(self, sampled: Sequence[int]) -> bool:
        """Whether the marker that ends a thought is among these tokens."""
        return self.form.holds_end(sampled, self.tokenizer)

    def start(
        self, ids: Sequence[int], budget: int, *, grace: int | None, answer: int, apart: bool
    ) -> Life:
        """Start a thought under `budget`; at most `answer` tokens may follow it.

        `grace` None means serving's grace. `apart` makes thought and answer two requests.
        """
        close = len(self.form.close.ids)
        ask = Ask(
            budget=budget,
            grace_tokens=grace,
            max_completion_tokens=budget + close + answer,
            min_answer_tokens=answer,
        )
        limits = Limits(max_model_len=len(ids) + budget + close + answer)
        plan = resolve(ask, limits, prompt_tokens=len(ids), close_tokens=close, thinks=True)
        prompt = PlannedPrompt(list(ids), plan, self.form, self.form.close)
        life = Life(self._checkpoint.thought(prompt, Sampling(max_tokens=0), apart=apart))
        life.thought.start(0.0)
        return life


def plain(
    prompts: Sequence[Prompt], group: int, longest: int, sampler: Sampler, reader: Reader
) -> list[Response]:
    """`group` responses of at most `longest` tokens to every prompt, a prompt's side by side."""
    return hinted(prompts, [(None, ())] * group, longest, sampler, reader)


def hinted(
    prompts: Sequence[Prompt],
    hints: Sequence[Hint],
    longest: int,
    sampler: Sampler,
    reader: Reader,
) -> list[Response]:
    """A response per prompt and hint, the hint behind the open marker.

    HBPO (arXiv 2507.15844, §3.1): equal hints form a subgroup. A budget is only a promise in the
    text, not a truncation.
    """
    return pull(responses([(prompt, hints) for prompt in prompts], longest, reader), sampler)


def responses(
    asked: Sequence[tuple[Prompt, Sequence[Hint]]], longest: int, reader: Reader
) -> Rounds[list[Response]]:
    """One round of sampling: a response for each hint of each prompt."""
    noise_BT = torch.cat([uniforms(prompt.key, len(hints), longest) for prompt, hints in asked])
    heads = [(prompt, budget, hint) for prompt, hints in asked for budget, hint in hints]
    lives = [_whole(prompt, hint, longest, reader) for prompt, _, hint in heads]
    written = yield from advance([[life] for life in lives], noise_BT)
    return [
        Response(prompt, hint, budget, tuple(sampled), *_read(life, reader.closes(sampled)))
        for (prompt, budget, hint), sampled, life in zip(heads, written, lives, strict=True)
    ]


def _whole(prompt: Prompt, hint: tuple[int, ...], longest: int, reader: Reader) -> Life:
    return reader.start((*prompt.ids, *hint), longest, grace=0, answer=1, apart=False)


def stop_ids(prompt: Prompt, longest: int, reader: Reader) -> frozenset[int]:
    """The tokens that end a response."""
    segment = _whole(prompt, (), longest, reader).segment
    return frozenset(segment.eos | set(segment.sampling.stop_token_ids))


def _read(life: Life, marked: bool) -> tuple[int, bool, str]:
    """Thinking tokens, whether the response is formatted, and its answer.

    Here no thought is closed for the model: a thought without its end marker has no answer.
    """
    outcome = life.thought.outcome
    closed = marked and not outcome.answer_forced
    formatted = closed and outcome.finish_reason == "stop"
    return outcome.thinking_tokens, formatted, life.answer if closed else ""


def replay(
    prompt: Prompt, hint: tuple[int, ...], sampled: Sequence[int], longest: int, reader: Reader
) -> Response:
    """Read the response that consists of these tokens, without sampling."""
    life = _whole(prompt, hint, longest, reader)
    ended = sampled[-1] in life.segment.eos
    life.feed(Chunk(list(sampled), "stop" if ended else "length"))
    return Response(prompt, hint, None, tuple(sampled), *_read(life, reader.closes(sampled)))


def truncated(
    prompts: Sequence[Prompt],
    group: int,
    sampler: Sampler,
    reader: Reader,
    *,
    budgets: Sequence[int],
    summaries: int,
    summary_tokens: int,
    grace: int | None = None,
) -> list[Truncated]:
    """`group` thoughts per prompt, each cut at every budget and answered `summaries` times there.

    AnytimeReasoner (arXiv 2505.13438, §3.1). The close text's tokens count as the summary's.
    Sampling continues past the largest budget for the length of the end marker: if the marker
    comes, the thought ended by itself. In the last `grace` tokens of a budget a cut waits for a
    clean end; None means serving's grace, and the paper has none.
    """
    asked = [(prompt, group) for prompt in prompts]
    rounds = thoughts(
        asked,
        reader,
        budgets=budgets,
        summaries=summaries,
        summary_tokens=summary_tokens,
        grace=grace,
    )
    return pull(rounds, sampler)


def thoughts(
    groups: Sequence[tuple[Prompt, int]],
    reader: Reader,
    *,
    budgets: Sequence[int],
    summaries: int,
    summary_tokens: int,
    grace: int | None,
) -> Rounds[list[Truncated]]:
    """Two rounds of sampling: each prompt's number of thoughts, then the summaries of all."""
    asked = [(prompt, n) for prompt, size in groups for n in range(size)]
    longest = budgets[-1] + reader.end_tokens
    noise_BT = torch.cat([uniforms(prompt.key, size, longest) for prompt, size in groups])
    lives = [
        [
            reader.start(prompt.ids, budget, grace=grace, answer=summary_tokens, apart=True)
            for budget in budgets
        ]
        for prompt, _ in asked
    ]
    written = yield from advance(lives, noise_BT)
    cuts = [
        [_cut(life, len(prompt.ids), reader) for life in row]
        for (prompt, _), row in zip(asked, lives, strict=True)
    ]

    # One batch has the summaries of all thoughts; (thought, budget) identifies their cut.
    places = [(i, j) for i, row in enumerate(cuts) for j, cut in enumerate(row) if cut is not None]
    forks = [lives[i][j].fork() for i, j in places for _ in range(summaries)]
    left = [summary_tokens - life.thought.outcome.forced_tokens for life in forks]
    noise = [
        uniforms(f"{asked[i][0].key}/{asked[i][1]}/{j}", summaries, summary_tokens)
        for i, j in places
    ]
    rows = [[life] for life in forks]
    said = (yield from advance(rows, torch.cat(noise), left)) if rows else []
    answers = [_summary(ids, life, reader) for ids, life in zip(said, forks, strict=True)]
    by_place = {
        place: tuple(answers[n * summaries : (n + 1) * summaries]) for n, place in enumerate(places)
    }
    return [
        Truncated(
            prompt,
            tuple(_own(thought, cuts[i][-1])),
            lives[i][-1].thought.outcome.thinking_tokens,
            tuple(cuts[i]),
            tuple(by_place.get((i, j), ()) for j in range(len(budgets))),
        )
        for i, ((prompt, _), thought) in enumerate(zip(asked, written, strict=True))
    ]


def _cut(life: Life, prompt_tokens: int, reader: Reader) -> Cut | None:
    """The cut of a thought at its budget; None where the text ended inside the thought.

    In that case a server would close the thought and continue.
    """
    outcome = life.thought.outcome
    if outcome.answer_forced and outcome.end_cause == "natural":
        return None
    kept = len(life.segment.prompt) - prompt_tokens - outcome.forced_tokens
    return Cut(kept, reader.form.close.ids if outcome.answer_forced else ())


def _own(sampled: Sequence[int], longest: Cut | None) -> Sequence[int]:
    """A thought's tokens up to its own end; sampling may have continued beyond it."""
    return sampled if longest is None or longest.close else sampled[: longest.kept]


def _summary(ids: list[int], life: Life, reader: Reader) -> Summary:
    ended = life.thought.outcome.finish_reason == "stop"
    return Summary(tuple(ids), ended and not reader.closes(ids), life.answer)
