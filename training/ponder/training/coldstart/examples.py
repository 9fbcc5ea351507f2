"""Training examples as token ids, and batches of examples.

Every part of a sequence is tokenised by itself and joined by id, as the server does when it closes
a thought. So a forced close in service has the same tokens as in training.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from random import Random
from typing import Any

from ponder.evaluation.protocol import MINIMAL_HINT
from ponder.tasks.derivations import taught
from ponder.tasks.problems import Split, split_of
from ponder.tasks.sources import find_tasks
from ponder.tasks.tiny import TINY_TASKS
from ponder.tasks.worked import TaughtTask, Worked

from ..run.recipe import TraceMix
from . import calls, openings, smalltalk
from .objects import with_object
from .reasoning import reason
from .thoughts import (
    CLOSE_TEXT,
    HINT,
    Piece,
    Style,
    answer_text,
    best_guess,
    reply_text,
    smallest_budget,
    write_thought,
)
from .tokenizer import TURN_END

_SYSTEM = (
    "You are a careful assistant.",
    "You are a helpful assistant.",
    "You are Ponder.",
    "Think, then answer.",
)
_SYSTEM_SHARE = 0.1
_EARLIER_TURN_SHARE = 0.1
# Share of arithmetic among the questions that people type first; the rest is small talk.
_NUMBERS_SHARE = 0.7
_PLAIN_SHARE = 0.2
# Shares of slow thoughts that are the solution alone: early in training, and later.
_TERSE, _RARELY_TERSE = 0.95, 0.03
_SHORT = (openings.FAMILY, smalltalk.FAMILY, calls.FAMILY)
# A tokenizer's corpus has one chat with tools for this many questions of each other kind.
_CALLS_OF_A_CORPUS = 3
# Batches are cut from pools of this many examples, sorted by length to save padding.
_POOL = 1024


@dataclass(frozen=True, slots=True)
class Example:
    """A sequence; `learnt[i]` says whether predicting token i counts in the loss."""

    ids: list[int]
    learnt: list[bool]


@dataclass(frozen=True, slots=True)
class Thought:
    """A written thought, its tokens and the hint that opens it ("" for none)."""

    pieces: list[Piece]
    ids: list[int]
    ends: list[int]  # character offset at which each token ends
    learnt: list[bool]
    hint: str


class ExampleWriter:
    """Writes examples of one split with one tokenizer; a function of the `rng` it is given."""

    def __init__(self, tokenizer: Any, mix: TraceMix, split: Split) -> None:
        self._tokenizer = tokenizer
        self._mix = mix
        self._split = split
        self._tasks = _taught(mix)
        self._close_ids = self._encode(CLOSE_TEXT)
        self._end_id: int = tokenizer.convert_tokens_to_ids(TURN_END)

    def write(self, rng: Random, terse: bool) -> Example:
        """One example. `terse`, for the early part of training, asks for whole and mostly short
        thoughts, which have the most arithmetic per token.
        """
        if rng.random() < self._mix.tools:
            chat = calls.conversation(rng, self._split, partial(self._draw, rng))
        else:
            chat = self._plain(rng)
        worked = chat.worked
        prompt_ids = self._prompt_ids(chat, rng)
        thought = self._thought(worked, rng, terse)
        hint_ids = self._encode(thought.hint)
        kept = len(thought.ids)
        cut = not terse and rng.random() < self._mix.cut
        if cut:
            kept = 0 if rng.random() < self._mix.cut_at_zero else rng.randint(0, kept)
        answer = worked.problem.answer
        if cut:
            answer = best_guess(thought.pieces, thought.ends[kept - 1] if kept else 0, answer)
        answer_ids, answer_learnt = self._answer(chat, answer)
        parts = (
            (prompt_ids, [False] * len(prompt_ids)),
            (hint_ids, [False] * len(hint_ids)),
            (thought.ids[:kept], thought.learnt[:kept]),
            # The server inserts a forced close: the model must not learn to stop there.
            (self._close_ids, [not cut] * len(self._close_ids)),
            (answer_ids, answer_learnt),
        )
        ids = [i for part, _ in parts for i in part]
        learnt = [flag for _, flags in parts for flag in flags]
        return Example(ids, learnt)

    def _draw(self, rng: Random) -> Worked:
        if rng.random() < self._mix.everyday:
            return _first_typed(rng)
        while True:
            worked = _drawn(self._tasks, rng)
            if split_of(worked.problem) == self._split:
                return worked

    def _plain(self, rng: Random) -> calls.Conversation:
        worked = self._draw(rng)
        question, wanted = worked.problem.question, None
        if rng.random() < self._mix.objects and worked.problem.family != smalltalk.FAMILY:
            question, wanted = with_object(question, rng)
        turns = [{"role": "user", "content": question}]
        if rng.random() < _EARLIER_TURN_SHARE:
            earlier = self._draw(rng).problem
            turns = [
                {"role": "user", "content": earlier.question},
                {"role": "assistant", "content": reply_text(earlier, earlier.answer)},
                *turns,
            ]
        return calls.Conversation(turns, [], worked, wanted)

    def _prompt_ids(self, chat: calls.Conversation, rng: Random) -> list[int]:
        turns = list(chat.turns)
        if rng.random() < _SYSTEM_SHARE:
            turns = [{"role": "system", "content": rng.choice(_SYSTEM)}, *turns]
        text = self._tokenizer.apply_chat_template(
            turns, tools=chat.tools or None, add_generation_prompt=True, tokenize=False
        )
        return self._encode(text)

    def _thought(self, worked: Worked, rng: Random, terse: bool) -> Thought:
        if worked.problem.family in _SHORT:
            return self._short_thought(worked, rng)
        if self._mix.tasks:
            return self._slow_thought(worked, rng, terse)
        draw = rng.random()
        if draw < self._mix.minimal:
            return self._written(write_thought(worked, "terse", 0, rng), MINIMAL_HINT)
        hinted = draw < self._mix.minimal + self._mix.hinted
        style, checks = _habit(rng, hinted, terse)
        thought = self._written(write_thought(worked, style, checks, rng), "")
        while len(thought.ids) > self._mix.longest and checks > 0:
            checks -= 1
            thought = self._written(write_thought(worked, style, checks, rng), "")
        budget = smallest_budget(len(thought.ids), self._mix.budgets) if hinted else None
        if budget is None:
            return thought
        return replace(thought, hint=HINT.format(budget=budget))

    def _slow_thought(self, worked: Worked, rng: Random, terse: bool) -> Thought:
        """A slow thought, whose hint, if any, is unrelated to its length. Instead of a thought that
        is too long, it returns the solution alone, with fewer dead ends.
        """
        short = rng.random() < (_TERSE if terse else _RARELY_TERSE)
        while True:
            pieces = write_thought(worked, "terse", 0, rng) if short else reason(worked, rng)
            thought = self._written(pieces, self._any_hint(rng))
            fewer = worked.with_fewer_dead_ends() if short else worked
            if len(thought.ids) <= self._mix.longest or (short and fewer == worked):
                return thought
            worked, short = fewer, True

    def _any_hint(self, rng: Random) -> str:
        hinted = rng.random() < self._mix.hinted
        return HINT.format(budget=rng.choice(self._mix.budgets)) if hinted else ""

    def _short_thought(self, worked: Worked, rng: Random) -> Thought:
        """A thought on a question that people type first, under any budget that it fits into."""
        plain = worked.checks and rng.random() < _PLAIN_SHARE
        thought = self._written(write_thought(worked, "plain" if plain else "terse", 0, rng), "")
        if self._mix.tasks:
            return replace(thought, hint=self._any_hint(rng))
        draw = rng.random()
        if draw < self._mix.minimal:
            return replace(thought, hint=MINIMAL_HINT)
        holding = [b for b in self._mix.budgets if b >= len(thought.ids)]
        if draw >= self._mix.minimal + self._mix.hinted or not holding:
            return thought
        return replace(thought, hint=HINT.format(budget=rng.choice(holding)))

    def _answer(self, chat: calls.Conversation, answer: str) -> tuple[list[int], list[bool]]:
        """Token ids of the reply and of its end, and a learnt flag for each."""
        if chat.object is None:
            ids = [*self._encode(reply_text(chat.worked.problem, answer)), self._end_id]
            return ids, [True] * len(ids)
        text, given = chat.object.text(answer), chat.object.given
        ids, spans = self._spans(text)
        return [*ids, self._end_id], [*(start >= given for start, _ in spans), True]

    def _written(self, pieces: list[Piece], hint: str) -> Thought:
        ids, spans = self._spans("".join(piece.text for piece in pieces))
        flags = [piece.learnt for piece in pieces for _ in piece.text]
        learnt = [all(flags[start:end]) for start, end in spans]
        return Thought(pieces, ids, [end for _, end in spans], learnt, hint)

    def _spans(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """Token ids, and the offsets in the text at which each begins and ends."""
        encoded = self._tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        return encoded["input_ids"], encoded["offset_mapping"]

    def _encode(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False)
        return ids


def _first_typed(rng: Random) -> Worked:
    return openings.opening(rng) if rng.random() < _NUMBERS_SHARE else smalltalk.talk(rng)


def _taught(mix: TraceMix) -> tuple[TaughtTask, ...]:
    return taught(find_tasks(mix.tasks)) if mix.tasks else TINY_TASKS


def _drawn(tasks: Sequence[TaughtTask], rng: Random) -> Worked:
    task = rng.choice(tasks)
    return task.work(rng, rng.choice(task.difficulties))


def _habit(rng: Random, hinted: bool, terse: bool) -> tuple[Style, int]:
    """Style and number of checks: unhinted thoughts ramble, hinted ones have every length."""
    shares = (0.05, 0.15) if not hinted else (0.3, 0.25)
    if terse:
        shares = (0.6, 0.3)
    draw = rng.random()
    if draw < shares[0]:
        return "terse", 0
    if draw < sum(shares):
        return "plain", 0
    return "verbose", rng.choices((1, 2, 3, 4), (0.5, 0.3, 0.15, 0.05))[0]


def batches(
    writer: ExampleWriter, rng: Random, tokens_per_step: int, terse_steps: int
) -> Iterator[list[Example]]:
    """An endless stream of batches of at most `tokens_per_step` tokens, padding included.

    The first `terse_steps` batches, rounded up to whole pools, hold mostly terse thoughts.
    """
    step = 0
    while True:
        terse = step < terse_steps
        pool = sorted((writer.write(rng, terse) for _ in range(_POOL)), key=lambda e: len(e.ids))
        made: list[list[Example]] = [[]]
        for example in pool:
            if made[-1] and (len(made[-1]) + 1) * len(example.ids) > tokens_per_step:
                made.append([])
            made[-1].append(example)
        rng.shuffle(made)
        yield from made
        step += len(made)


def tokenizer_corpus(rng: Random, n: int, mix: TraceMix) -> Iterator[str]:
    """Texts for training a tokenizer, with every word of the tasks, of thoughts, of the questions
    that people type first and of calls.
    """
    tasks = _taught(mix)
    yield from ["system\nuser\nassistant\n", MINIMAL_HINT, *_SYSTEM] * (n // 4)
    for i in range(n):
        worked = _drawn(tasks, rng)
        written = reason(worked, rng) if mix.tasks else write_thought(worked, "verbose", 2, rng)
        thought = "".join(piece.text for piece in written)
        yield f"{worked.problem.question}\n{HINT}{thought}\n\n{answer_text('')}"
        worked = _first_typed(rng)
        steps = ". ".join(step.text for step in worked.steps)
        reply = reply_text(worked.problem, worked.problem.answer)
        yield f"{worked.problem.question}\n{worked.restated}\n{steps}\n{reply}"
        if mix.objects:
            question, wanted = with_object(worked.problem.question, rng)
            yield f"{question}\n{wanted.text(worked.problem.answer)}"
        if i % _CALLS_OF_A_CORPUS == 0:  # tools are long
            yield "\n".join(calls.conversation(rng, "train", partial(_first_typed, rng)).texts())
