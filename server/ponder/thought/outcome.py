"""What a thought shows while it lives, and what is known of it afterwards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from ponder.engine.protocol import Chunk, TokenLogprob
from ponder.thought.budget import Plan
from ponder.thought.errors import AnswerDidNotFit, NoAnswerProduced
from ponder.thought.exits.causes import Cause

FinishReason = Literal["stop", "length"]

_LEAST_ROOM = 16  # tokens: who leaves an answer less must reckon with a blank that fills it


@dataclass(frozen=True, slots=True)
class ThoughtDelta:
    """Text of the thought that no later cut can take back."""

    text: str


@dataclass(frozen=True, slots=True)
class InterimAnswer:
    """What a probe answered after the first `thinking_tokens` of a thought that goes on.

    An answer that is not `whole` was cut. `agreement` of the last answers are equal, where somebody
    counts them.
    """

    text: str
    thinking_tokens: int
    whole: bool = True
    agreement: int = 0


@dataclass(slots=True, kw_only=True)
class Outcome:
    """What happened to one thought. Token counts are exact, from token ids.

    completion = thinking + forced + answer + retry + probe. Sampled markers and EOS count as
    answer, but a marker that begins another part inside the thought is the thought's. All of a
    thought's blocks count together, and the first cut of one is the `end_cause`. `retry_tokens` are
    sampled tokens that a retry discarded. `probe_tokens` are those of the `probes`, which ran
    beside the thought; the engine failed `failed_probes` of them. What the allowance bounds are the
    `bounded_tokens`: all but the probes'. `audited_tokens` are the
    thinking tokens counted again, from the ids that the answer followed on and not by the reader.
    The `*_at` are `time.perf_counter` seconds, None for what did not happen. `calls` are those of
    the answer that came to their end, `prompt_logprobs` were asked for, and `stop_string` is the
    user's that ended the answer. `failure` is why there is no answer.
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
    stop_string: str | None = None
    prompt_logprobs: Sequence[TokenLogprob | None] = field(default=(), compare=False)
    first_token_at: float | None = None
    thought_ended_at: float | None = None
    first_answer_at: float | None = None
    ended_at: float | None = None
    failure: NoAnswerProduced | None = field(default=None, compare=False)

    def note(self, chunk: Chunk, now: float, *, first: bool) -> None:
        """Keep what the first chunk tells beside its tokens, and later ones of the cache."""
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
    """Why there is no answer: the request left it no room, or the model had none.

    It took `answered` tokens and might have taken `left` more.
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
