"""One chat completion: n thoughts on one prompt."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from types import MappingProxyType

from ponder.engine.protocol import Engine, Sampling
from ponder.experiment.holdout import Assignment
from ponder.protocol.budget import read_ask
from ponder.protocol.errors import error_code, invalid_request
from ponder.protocol.request import ChatCompletionRequest
from ponder.protocol.response import (
    CompletionTokensDetails,
    PonderReport,
    PromptTokensDetails,
    TokenCounts,
    Usage,
)
from ponder.server.model import ServedModel
from ponder.thought.budget import Limits
from ponder.thought.drive import drive
from ponder.thought.errors import NoAnswerProduced
from ponder.thought.outcome import Outcome
from ponder.thought.segment import AnswerRules
from ponder.thought.thought import Event, Thought

_SEED_MASK = (1 << 63) - 1
# Whoever waits for the whole answer does not need every token as it comes: gathering them
# halves the work between engine and socket. With log probabilities the work is theirs, and the
# choices of a request often have theirs at the same time.
_WHOLE_CHUNK_TOKENS = 16
_LOGPROBS_CHUNK_TOKENS = 4
MOST_LOGPROBS = 4_000_000
"""Log probabilities that one reply may hold: some 70 bytes of text each."""


class Completion:
    """A validated request, planned and ready to run on an engine.

    Building it raises every error that the request itself is at fault for.
    """

    def __init__(
        self,
        request: ChatCompletionRequest,
        model: ServedModel,
        engine: Engine,
        limits: Limits,
        assignment: Assignment,
        *,
        trace: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self.id = f"chatcmpl-{uuid.uuid4().hex}"
        self.created = int(time.time())
        self.started_at = time.perf_counter()
        self.request = request
        self.model = model
        self.assignment = assignment
        self.prompt = model.prompt(request, read_ask(request), limits)
        self._bound_logprobs()
        self._engine = engine
        self._sampling = _sampling(request, model)
        self._rules = AnswerRules(
            stop=tuple(request.stop),
            stop_token_ids=tuple(request.stop_token_ids),
            min_tokens=request.min_tokens,
        )
        self.trace = trace  # the client's headers of it
        self.headers = {"x-request-id": self.id}  # of the reply; observers may add
        self._thoughts: list[Thought] = []
        self.outcomes: list[Outcome] = []

    async def run(self, emit: Callable[[int, Event], None]) -> None:
        """Run every choice to its end; `outcomes` holds what happened.

        One that the engine fails fails the request and aborts the others. One without an answer
        says so in its outcome; where none has an answer, the first one's error is raised.
        """
        thoughts = [self._thought(index) for index in range(self.request.n)]
        self._thoughts = thoughts
        if len(thoughts) == 1:
            self.outcomes = [await self._drive(0, emit)]
            return
        tasks = []
        try:
            async with asyncio.TaskGroup() as group:
                for index in range(len(thoughts)):
                    tasks.append(group.create_task(self._live(index, emit)))
                    await asyncio.sleep(0)  # all at once, they would hold the loop
        except BaseExceptionGroup as failures:
            raise failures.exceptions[0] from failures
        unanswered = [failure for task in tasks if (failure := task.result()) is not None]
        if len(unanswered) == len(thoughts):
            raise unanswered[0]
        self.outcomes = [thought.outcome for thought in thoughts]

    async def _drive(self, index: int, emit: Callable[[int, Event], None]) -> Outcome:
        name = f"{self.id}-{index}"
        return await drive(self._thoughts[index], self._engine, name, partial(emit, index))

    async def _live(
        self, index: int, emit: Callable[[int, Event], None]
    ) -> NoAnswerProduced | None:
        try:
            await self._drive(index, emit)
        except NoAnswerProduced as failure:
            return failure
        return None

    @property
    def spent_tokens(self) -> int:
        """Completion tokens until now, also of choices that failed or were left."""
        return sum(thought.spent_tokens for thought in self._thoughts)

    def report(self, index: int) -> PonderReport:
        plan, outcome = self.prompt.plan, self.outcomes[index]
        return PonderReport(
            budget_requested=plan.requested,
            budget_effective=plan.budget,
            budget_source=plan.source,
            hint_budget=self.prompt.hint.budget if self.prompt.hint else None,
            thinking_tokens=outcome.thinking_tokens,
            forced_tokens=outcome.forced_tokens,
            answer_tokens=outcome.answer_tokens,
            retry_tokens=outcome.retry_tokens,
            end_cause=outcome.end_cause,
            answer_forced=outcome.answer_forced,
            arm=self.assignment.arm,
            error=error_code(outcome.failure) if outcome.failure else None,
        )

    def tokens(self) -> TokenCounts:
        """What was spent until now."""
        return TokenCounts.of(len(self.prompt.token_ids), self.spent_tokens)

    def usage(self) -> Usage:
        completion_tokens = sum(outcome.completion_tokens for outcome in self.outcomes)
        counts = TokenCounts.of(len(self.prompt.token_ids), completion_tokens)
        return Usage(
            **counts.model_dump(),
            completion_tokens_details=CompletionTokensDetails(
                reasoning_tokens=sum(outcome.thinking_tokens for outcome in self.outcomes)
            ),
            prompt_tokens_details=PromptTokensDetails(
                cached_tokens=max(outcome.cached_tokens for outcome in self.outcomes)
            ),
        )

    def _bound_logprobs(self) -> None:
        """Raise 400 where a reply could hold more of them than there is memory for."""
        request, plan = self.request, self.prompt.plan
        if not request.logprobs:
            return
        each = request.n * (1 + (request.top_logprobs or 0))
        tokens = min(plan.allowance, plan.max_answer or plan.allowance)
        if each * tokens > MOST_LOGPROBS:
            raise invalid_request(
                f"{request.n} choices of up to {tokens} tokens with {request.top_logprobs or 0} "
                f"alternatives each may have {each * tokens} log probabilities, and a reply holds "
                f"at most {MOST_LOGPROBS}: set max_completion_tokens to {MOST_LOGPROBS // each} or "
                f"less, or lower n or top_logprobs",
                "logprobs",
            )

    def _thought(self, index: int) -> Thought:
        sampling = self._sampling
        if sampling.seed is not None:
            sampling = replace(sampling, seed=(sampling.seed + index) & _SEED_MASK)
        exits = self.model.exits(self.request.ponder)
        return self.model.checkpoint.thought(self.prompt, sampling, self._rules, exits=exits)


def _sampling(request: ChatCompletionRequest, model: ServedModel) -> Sampling:
    """The request's rules over the model's own recommendations over neutral defaults."""
    chosen = dict(model.tokenizer.sampling_defaults)
    for name in ("temperature", "top_p", "top_k", "min_p", "repetition_penalty"):
        value = getattr(request, name)
        if value is not None:
            chosen[name] = value
    chosen["top_k"] = max(0, int(chosen.get("top_k", 0)))
    whole = _LOGPROBS_CHUNK_TOKENS if request.logprobs else _WHOLE_CHUNK_TOKENS
    return Sampling(
        max_tokens=0,  # set per segment by the thought
        **chosen,  # type: ignore[arg-type]
        presence_penalty=request.presence_penalty,
        frequency_penalty=request.frequency_penalty,
        seed=None if request.seed is None else request.seed & _SEED_MASK,
        ignore_eos=request.ignore_eos,
        logprobs=(request.top_logprobs or 0) if request.logprobs else None,
        logit_bias=request.logit_bias or {},
        chunk_tokens=1 if request.stream else whole,
    )
