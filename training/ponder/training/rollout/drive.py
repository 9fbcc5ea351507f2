"""Lives thoughts in batches: what each of them asks for is sampled side by side.

A rollout is left where a server would step in for the user's sake: an empty answer is not tried
again, and what to do about a thought that ends without its marker is the plan's to say.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import repeat

import torch

from ponder.engine.protocol import Chunk
from ponder.thought.answer import AnswerDelta
from ponder.thought.segment import Segment
from ponder.thought.thought import Thought

# (prompts, uniform numbers (B, T), stop ids) → sampled ids; see `sampler.sample`.
Sampler = Callable[[Sequence[Sequence[int]], torch.Tensor, frozenset[int]], list[list[int]]]


@dataclass(slots=True)
class Life:
    """A thought that was started, and what its answer has said so far."""

    thought: Thought
    answer: str = ""

    @property
    def segment(self) -> Segment:
        assert self.thought.segment is not None, "this life is over"
        return self.thought.segment

    def feed(self, chunk: Chunk) -> None:
        events = self.thought.feed(chunk, 0.0)
        self.answer += "".join(event.text for event in events if isinstance(event, AnswerDelta))

    def fork(self) -> Life:
        return Life(self.thought.fork(), self.answer)


def advance(
    rows: Sequence[Sequence[Life]],
    noise_BT: torch.Tensor,
    sampler: Sampler,
    limits: Sequence[int] | None = None,
) -> list[list[int]]:
    """Sample one request for every row, feed it to all lives of the row, and return its ids.

    The lives of a row ask for the same tokens and differ in where they cut them. A request is
    `limits` tokens long, at most, or as long as `noise_BT` is wide. All rows have the same stop
    ids.
    """
    if not rows:
        return []
    segments = [row[0].segment for row in rows]
    stops = segments[0].eos | set(segments[0].sampling.stop_token_ids)
    written = sampler([segment.prompt for segment in segments], noise_BT, stops)
    longest = noise_BT.shape[1]
    sampled = [ids[:limit] for ids, limit in zip(written, limits or repeat(longest), strict=False)]
    for row, ids in zip(rows, sampled, strict=True):
        chunk = Chunk(ids, "stop" if ids[-1] in stops else "length")
        for life in row:
            life.feed(chunk)
    return sampled
