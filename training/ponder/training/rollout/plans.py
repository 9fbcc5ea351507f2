"""Rollout plans: what is sampled for a prompt, and how it is cut, closed and read.

A thought is read, cut and closed by the code and with the text that serve it (`ponder.thought`):
what is trained is what is served.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ponder.engine.tokenizer import HFTokenizer
from ponder.tasks.problems import Problem
from ponder.thought.format import CompiledFormat
from ponder.thought.reader import ThoughtReader, Verdict

from .sampler import uniforms

# (prompts, uniform numbers (B, T), stop ids) → sampled ids; see `sampler.sample`.
Sampler = Callable[[Sequence[Sequence[int]], torch.Tensor, frozenset[int]], list[list[int]]]


@dataclass(frozen=True, slots=True)
class Prompt:
    """A problem as the model sees it, up to where its thought is open; `key` seeds its samples."""

    problem: Problem
    ids: tuple[int, ...]
    key: str


@dataclass(frozen=True, slots=True)
class Response:
    """One sampled response: `hint` was put in front of it, `sampled` is what the model wrote.

    `thinking_tokens` are those before the end marker. `formatted`: the thought was closed and the
    answer ended by itself within the limit. `answer` is the text after the thought.
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
    """A thought as a budget left it: its first `kept` tokens, then `close` if we ended it."""

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

    `sampled` ends with the end marker if the thought did so itself. `cuts[j]` is what budget j
    leaves, None where the model ended its text instead of its thought; `summaries[j]` answer it.
    Budgets that leave the same cut have summaries of their own.
    """

    prompt: Prompt
    sampled: tuple[int, ...]
    thinking_tokens: int
    cuts: tuple[Cut | None, ...]
    summaries: tuple[tuple[Summary, ...], ...]


class Reader:
    """Splits what a model wrote into thought and answer, and cuts thoughts at budgets."""

    def __init__(
        self, tokenizer: HFTokenizer, form: CompiledFormat, think: Mapping[str, Any] | None = None
    ) -> None:
        if form.end.token_id is None:
            raise ValueError(
                f"training needs an end marker of one token, and {form.end.text!r} is several: "
                "add it to the checkpoint's tokenizer first"
            )
        self.tokenizer = tokenizer
        self.form = form
        self._think = think or {}  # template arguments that switch thinking on
        self.end_id = form.end.token_id

    def prompt(self, problem: Problem, key: str) -> Prompt:
        text = self.tokenizer.render([{"role": "user", "content": problem.question}], self._think)
        return Prompt(problem, tuple(self.tokenizer.encode(text)), key)

    def thinking_tokens(self, sampled: Sequence[int]) -> int | None:
        """Tokens before the end marker; None where the thought never ended."""
        return sampled.index(self.end_id) if self.end_id in sampled else None

    def ended(self, sampled: Sequence[int]) -> bool:
        return bool(sampled) and sampled[-1] in self.tokenizer.eos_token_ids

    def text(self, sampled: Sequence[int]) -> str:
        return self.tokenizer.decode(sampled)

    def cut(self, sampled: Sequence[int], budget: int) -> Cut | None:
        """What `budget` leaves of a thought; None where the text ended inside the thought.

        As the server cuts it, but for that end: there the server closes the thought and goes on.
        """
        reader = ThoughtReader(self.form, self.tokenizer, budget=budget)
        for read, token_id in enumerate(sampled, 1):
            if token_id in self.tokenizer.eos_token_ids:
                if reader.settle():
                    return None
                break  # the budget was spent before
            verdict = reader.feed(token_id)
            if verdict is Verdict.ENDED:
                return Cut(read, ())
            if verdict is Verdict.OVER:
                break
        else:
            reader.settle()
        return Cut(len(reader.thinking), self.form.close.ids)

    def response(
        self, prompt: Prompt, hint: tuple[int, ...], budget: int | None, sampled: list[int]
    ) -> Response:
        thinking = self.thinking_tokens(sampled)
        answer = "" if thinking is None else self.text(sampled[thinking + 1 :])
        return Response(
            prompt,
            hint,
            budget,
            tuple(sampled),
            len(sampled) if thinking is None else thinking,
            thinking is not None and self.ended(sampled),
            answer,
        )


def plain(
    prompts: Sequence[Prompt], group: int, longest: int, sampler: Sampler, reader: Reader
) -> list[Response]:
    """`group` responses of at most `longest` tokens to every prompt, a prompt's side by side."""
    return hinted(prompts, [(None, ())] * group, longest, sampler, reader)


def hinted(
    prompts: Sequence[Prompt],
    hints: Sequence[tuple[int | None, tuple[int, ...]]],
    longest: int,
    sampler: Sampler,
    reader: Reader,
) -> list[Response]:
    """A response per prompt and hint (budget, its tokens), the hint put behind the open marker.

    HBPO (arXiv 2507.15844, §3.1): equal hints form a subgroup. A budget is a promise in the text,
    never a truncation.
    """
    asked = [(prompt, budget, hint) for prompt in prompts for budget, hint in hints]
    noise_BT = torch.cat([uniforms(prompt.key, len(hints), longest) for prompt in prompts])
    written = sampler(
        [(*prompt.ids, *hint) for prompt, _, hint in asked],
        noise_BT,
        reader.tokenizer.eos_token_ids,
    )
    return [
        reader.response(prompt, hint, budget, sampled)
        for (prompt, budget, hint), sampled in zip(asked, written, strict=True)
    ]


def truncated(
    prompts: Sequence[Prompt],
    group: int,
    sampler: Sampler,
    reader: Reader,
    *,
    budgets: Sequence[int],
    summaries: int,
    summary_tokens: int,
) -> list[Truncated]:
    """`group` thoughts per prompt, each cut at every budget and answered `summaries` times there.

    AnytimeReasoner (arXiv 2505.13438, §3.1). What closes a thought counts as its summary's
    tokens. Thoughts run to one token past the largest budget:
    if that is the end marker, the thought ended by itself.
    """
    asked = [prompt for prompt in prompts for _ in range(group)]
    noise_BT = torch.cat([uniforms(prompt.key, group, budgets[-1] + 1) for prompt in prompts])
    stops = reader.tokenizer.eos_token_ids | {reader.end_id}
    thoughts = sampler([prompt.ids for prompt in asked], noise_BT, stops)
    cuts = [[reader.cut(thought, budget) for budget in budgets] for thought in thoughts]

    # One batch holds the summaries of all thoughts; (thought, budget) says whose they are.
    places = [(i, j) for i, row in enumerate(cuts) for j, cut in enumerate(row) if cut is not None]
    starts: list[tuple[int, ...]] = []
    noise: list[torch.Tensor] = []
    for i, j in places:
        cut = cuts[i][j]
        assert cut is not None
        starts += [(*asked[i].ids, *thoughts[i][: cut.kept], *cut.close)] * summaries
        noise.append(uniforms(f"{asked[i].key}/{i % group}/{j}", summaries, summary_tokens))
    written = iter(
        sampler(starts, torch.cat(noise), reader.tokenizer.eos_token_ids) if starts else ()
    )
    answers: dict[tuple[int, int], tuple[Summary, ...]] = {}
    for place in places:
        cut = cuts[place[0]][place[1]]
        assert cut is not None
        left = summary_tokens - len(cut.close)
        sampled = [next(written)[:left] for _ in range(summaries)]
        answers[place] = tuple(
            Summary(tuple(ids), reader.ended(ids) and reader.end_id not in ids, reader.text(ids))
            for ids in sampled
        )
    return [
        Truncated(
            prompt,
            tuple(thought),
            len(thought) if (n := reader.thinking_tokens(thought)) is None else n,
            tuple(cuts[i]),
            tuple(answers.get((i, j), ()) for j in range(len(budgets))),
        )
        for i, (prompt, thought) in enumerate(zip(asked, thoughts, strict=True))
    ]
