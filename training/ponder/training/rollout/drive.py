"""Drives many thoughts at once, and samples their requests in batches.

A rollout gets none of the corrections that a server makes for its user. An empty answer is not
tried again. No marker is forbidden, because samples must be the policy's own, and a policy that
writes a marker in its answer must unlearn it. The plan decides what happens to a thought that ends
without its marker.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import TypeVar

import torch

from ponder.engine.protocol import Chunk
from ponder.thought.answer import AnswerDelta
from ponder.thought.segment import Segment
from ponder.thought.thought import Thought

# (prompts, uniform numbers (B, T), stop ids) → sampled ids; see `sampler.sample`.
Sampler = Callable[[Sequence[Sequence[int]], torch.Tensor, frozenset[int]], list[list[int]]]

Made = TypeVar("Made")


@dataclass(frozen=True, slots=True)
class Round:
    """Prompts to continue side by side, each by at most T tokens, up to the first stop id.

    `noise_BT` has the uniform numbers that pick each row's tokens.
    """

    prompts: Sequence[Sequence[int]]
    noise_BT: torch.Tensor
    stop_ids: frozenset[int]


# Yields rounds to sample, receives the sampled ids of every row, and returns the finished result.
Rounds = Generator[Round, list[list[int]], Made]


def pull(rounds: Rounds[Made], sampler: Sampler) -> Made:
    """Sample round after round in batches, and return the generator's result.

    An asynchronous engine would instead hold a generator per prompt, and send the tokens to it when
    they have come.
    """
    try:
        asked = next(rounds)
        while True:
            asked = rounds.send(sampler(asked.prompts, asked.noise_BT, asked.stop_ids))
    except StopIteration as done:
        made: Made = done.value
        return made


def uniforms(key: str, rows: int, tokens: int) -> torch.Tensor:
    """Numbers in [0, 1), shape (rows, tokens), that depend on `key` alone.

    Row i does not depend on `rows`, nor do its first numbers depend on `tokens`.
    """
    drawn = torch.empty(rows, tokens, dtype=torch.float64)
    for row in range(rows):
        digest = hashlib.sha256(f"{key}/{row}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
        drawn[row] = torch.rand(tokens, generator=generator, dtype=torch.float64)
    return drawn


@dataclass(slots=True)
class Life:
    """A thought that was started, and its answer's text so far."""

    thought: Thought
    answer: str = ""

    @property
    def segment(self) -> Segment:
        assert self.thought.segment is not None, "this life is over"
        return self.thought.segment

    def feed(self, chunk: Chunk) -> None:
        events = self.thought.feed(chunk, 0.0)
        if self.thought.outcome.probes:
            raise NotImplementedError(
                "a batch samples a thought to its end before anything can run beside it: give this "
                "thought no exit that asks for probes"
            )
        self.answer += "".join(event.text for event in events if isinstance(event, AnswerDelta))

    def fork(self) -> Life:
        return Life(self.thought.fork(), self.answer)


def advance(
    rows: Sequence[Sequence[Life]], noise_BT: torch.Tensor, limits: Sequence[int] | None = None
) -> Rounds[list[list[int]]]:
    """Sample one request for every row, feed it to all lives of the row, and return its ids.

    The lives of a row request the same tokens and differ in where they cut them. A row's request
    has at most its `limits` tokens, or without limits the width of `noise_BT`. All rows have the
    same stop ids.
    """
    if not rows:
        return []
    segments = [row[0].segment for row in rows]
    stops = segments[0].eos | set(segments[0].sampling.stop_token_ids)
    written = yield Round([segment.prompt for segment in segments], noise_BT, stops)
    longest = noise_BT.shape[1]
    sampled = [ids[:limit] for ids, limit in zip(written, limits or repeat(longest), strict=False)]
    for row, ids in zip(rows, sampled, strict=True):
        chunk = Chunk(ids, "stop" if ids[-1] in stops else "length")
        for life in row:
            life.feed(chunk)
    return sampled
