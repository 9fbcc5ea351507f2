"""The text that a thought emits while it runs, and the record of it afterwards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from ponder.engine.protocol import Chunk, TokenLogprob
from ponder.thought.budget import Plan
from ponder.thought.errors import AnswerDidNotFit, NoAnswerProduced
from ponder.thought.exits.causes import Cause

FinishReason = Literal["stop", "length"]

_LEAST_ROOM = 16  # tokens: with less room, leading blank may fill the answer


@dataclass(frozen=True, slots=True)
class ThoughtDelta:
    """Text of the thought that no later cut can take back."""

    text: str


@dataclass(frozen=True, slots=True)
class InterimAnswer:
    """What a probe answered after the first `thinking_tokens` of a thought that goes on.

    An answer that is not `whole` was truncated. `agreement` is how many of the last answers are
    equal, 0 where nobody counts.
    """

    text: str
    thinking_tokens: int
    whole: bool = True
    agreement: int = 0


@dataclass(slots=True, kw_only=True)
class Outcome:
    """What happened to one thought. Token counts are exact, from token ids.

    completion = thinking + forced + answer + retry + probe. Sampled markers and EOS count as
    answer, but a marker that begins another part inside the thought is the thought's. All blocks of
    a thought count together; the first cut gives the `end_cause`. `retry_tokens` were sampled and
    discarded by a retry. The `probes`, which ran beside the thought, sampled `probe_tokens`; the
    engine failed `failed_probes` of them. The allowance bounds `bounded_tokens`: all but the
    probes'. `audited_tokens` are the thinking tokens counted a second time, from the ids that
    precede the answer instead of by the reader. The `*_at` are seconds of `time.perf_counter`, None
    for an event that did not happen. `calls` is the number of complete calls in the answer,
    `reopens` that of blocks of thought that it opened, and `closes` that of end markers that it
    held where no thought was open. `prompt_logprobs` are there if asked for, and `stop_string` is
    the user's stop string that ended the answer. `failure` is why there is no answer.
    """

    end_cause: Cause = "natural"
    finish_reason: FinishReason = "stop"
    thinking_tokens: int = 0
    audited_tokens: int = 0
    forced_tokens: int = 0
    answer_tokens: int = 0
    retry_tokens: int = 0
    probe_tokens: int = 0
    probes: int = 0
    failed_probes: int = 0
    cached_tokens: int = 0
    answer_forced: bool = False
    calls: int = 0
    reopens: int = 0
    closes: int = 0
    stop_string: str | None = None
    prompt_logprobs: Sequence[TokenLogprob | None] = field(default=(), compare=False)
    first_token_at: float | None = None
    thought_ended_at: float | None = None
    first_answer_at: float | None = None
    ended_at: float | None = None
    failure: NoAnswerProduced | None = field(default=None, compare=False)

    def note(self, chunk: Chunk, now: float, *, first: bool) -> None:
        """Record a chunk's time, prompt log probabilities and cached tokens.

        Cached tokens count only in the `first` request of a thought.
        """
        if self.first_token_at is None:
            self.first_token_at = now
        if chunk.prompt_logprobs is not None:
            self.prompt_logprobs = chunk.prompt_logprobs
        if chunk.cached_tokens and first:
            self.cached_tokens = chunk.cached_tokens

    @property
    def bounded_tokens(self) -> int:
        return self.thinking_tokens + self.forced_tokens + self.answer_tokens + self.retry_tokens

    @property
    def completion_tokens(self) -> int:
        return self.bounded_tokens + self.probe_tokens


def no_answer(outcome: Outcome, plan: Plan, answered: int, left: int) -> NoAnswerProduced:
    """The error for a missing answer: the request left it no room, or the model gave none.

    The answer took `answered` tokens and might have taken `left` more.
    """
    bound = plan.max_answer is not None and answered >= plan.max_answer
    limit = "max_answer_tokens" if bound else "max_completion_tokens"
    remedy = f"raise `{limit}`, or sample with a higher temperature"
    room = answered + outcome.retry_tokens
    if left <= 0 and room < _LEAST_ROOM:
        return AnswerDidNotFit(
            f"no more than {room} tokens were left for an answer, and the model began it with "
            f"blank: {remedy}",
            limit,
        )
    return NoAnswerProduced(
        f"the model produced no answer in {outcome.bounded_tokens} tokens: {remedy}"
    )
