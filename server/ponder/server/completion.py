"""One chat completion: n thoughts on one prompt, told as a whole or as a stream."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import replace

from ponder.engine.base import Engine, Sampling, TokenLogprob
from ponder.protocol.budget import read_ask
from ponder.protocol.request import ChatCompletionRequest
from ponder.protocol.response import (
    ChatCompletion,
    Choice,
    ChoiceLogprobs,
    CompletionTokensDetails,
    PonderReport,
    PromptTokensDetails,
    ResponseMessage,
    TokenLogprobEntry,
    TopLogprob,
    Usage,
)
from ponder.server.model import ServedModel
from ponder.thought.answer import AnswerDelta
from ponder.thought.budget import Limits
from ponder.thought.controller import AnswerRules, Outcome, Thought, ThoughtDelta
from ponder.thought.holdout import Assignment

_SEED_MASK = (1 << 63) - 1
# Whoever waits for the whole answer does not need every token as it comes: gathering them
# halves the work between engine and socket.
_WHOLE_CHUNK_TOKENS = 16
_to_json = json.JSONEncoder().encode


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
    ) -> None:
        self.id = f"chatcmpl-{uuid.uuid4().hex}"
        self.created = int(time.time())
        self.started_at = time.perf_counter()
        self.request = request
        self.model = model
        self.assignment = assignment
        self.prompt = model.prompt(request, read_ask(request), limits)
        self._engine = engine
        self._sampling = _sampling(request, model)
        self._rules = AnswerRules(
            stop=tuple(request.stop),
            stop_token_ids=tuple(request.stop_token_ids),
            min_tokens=request.min_tokens,
        )
        self.trace: dict[str, str] = {}  # headers: the client's, then those of our span
        self._thoughts: list[Thought] = []
        self.outcomes: list[Outcome] = []

    async def run(self, emit: Callable[[int, ThoughtDelta | AnswerDelta], None]) -> None:
        """Run every choice to its end; `outcomes` holds what happened.

        One failing choice fails the request and aborts the others.
        """
        thoughts = [self._thought(index) for index in range(self.request.n)]
        self._thoughts = thoughts
        if len(thoughts) == 1:
            self.outcomes = [await thoughts[0].run(lambda delta: emit(0, delta))]
            return
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(thought.run(lambda delta, index=index: emit(index, delta)))  # type: ignore[misc]
                    for index, thought in enumerate(thoughts)
                ]
        except BaseExceptionGroup as failures:
            raise failures.exceptions[0] from failures
        self.outcomes = [task.result() for task in tasks]

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
        )

    def usage(self) -> Usage:
        prompt_tokens = len(self.prompt.token_ids)
        completion_tokens = sum(outcome.completion_tokens for outcome in self.outcomes)
        return Usage(
            prompt_tokens=prompt_tokens,
            completion_tokens=completion_tokens,
            total_tokens=prompt_tokens + completion_tokens,
            completion_tokens_details=CompletionTokensDetails(
                reasoning_tokens=sum(outcome.thinking_tokens for outcome in self.outcomes)
            ),
            prompt_tokens_details=PromptTokensDetails(
                cached_tokens=max(outcome.cached_tokens for outcome in self.outcomes)
            ),
        )

    def _thought(self, index: int) -> Thought:
        sampling = self._sampling
        if sampling.seed is not None:
            sampling = replace(sampling, seed=(sampling.seed + index) & _SEED_MASK)
        return Thought(
            self._engine,
            self.model.tokenizer,
            self.model.compiled,
            prompt=self.prompt.token_ids,
            plan=self.prompt.plan,
            sampling=sampling,
            rules=self._rules,
            request_id=f"{self.id}-{index}",
            close=self.prompt.close,
            shown_prefix=self.prompt.shown,
        )


class WholeReply:
    """Gathers the deltas of every choice into one response."""

    def __init__(self, completion: Completion) -> None:
        self._completion = completion
        count = completion.request.n
        self._reasoning: list[list[str]] = [[] for _ in range(count)]
        self._content: list[list[str]] = [[] for _ in range(count)]
        self._logprobs: list[list[TokenLogprob]] = [[] for _ in range(count)]

    def emit(self, index: int, delta: ThoughtDelta | AnswerDelta) -> None:
        if isinstance(delta, ThoughtDelta):
            self._reasoning[index].append(delta.text)
        else:
            self._content[index].append(delta.text)
            self._logprobs[index].extend(delta.logprobs)

    def response(self) -> ChatCompletion:
        completion = self._completion
        return ChatCompletion(
            id=completion.id,
            created=completion.created,
            model=completion.model.name,
            choices=[self._choice(index) for index in range(completion.request.n)],
            usage=completion.usage(),
        )

    def _choice(self, index: int) -> Choice:
        completion = self._completion
        reasoning = "".join(self._reasoning[index]) or None
        if not completion.request.shows_reasoning:
            reasoning = None
        return Choice(
            index=index,
            message=ResponseMessage(
                content="".join(self._content[index]),
                reasoning=reasoning,
                reasoning_content=reasoning,
            ),
            logprobs=_choice_logprobs(completion, self._logprobs[index]),
            finish_reason=completion.outcomes[index].finish_reason,
            ponder=completion.report(index),
        )


class StreamedReply:
    """Turns deltas into server-sent events (each a `ChatCompletionChunk`).

    The envelope of an event does not change within a reply, so it is encoded once.
    """

    def __init__(self, completion: Completion) -> None:
        self._completion = completion
        self._shows_reasoning = completion.request.shows_reasoning
        options = completion.request.stream_options
        self._with_usage = options is not None and options.include_usage
        envelope = json.dumps(
            {
                "id": completion.id,
                "object": "chat.completion.chunk",
                "created": completion.created,
                "model": completion.model.name,
            }
        )
        self._head = f'data: {envelope[:-1]}, "choices": '
        self._tail = (', "usage": null' if self._with_usage else "") + "}\n\n"
        self._opened = [False] * completion.request.n

    def event(self, index: int, delta: ThoughtDelta | AnswerDelta) -> bytes:
        """The event that says this delta; empty for reasoning that is not shown."""
        if isinstance(delta, AnswerDelta):
            entries = _choice_logprobs(self._completion, delta.logprobs)
            logprobs = entries.model_dump_json() if entries else "null"
            return self._event(index, f'{{"content": {_to_json(delta.text)}}}', logprobs)
        if self._shows_reasoning:
            return self._event(index, f'{{"reasoning": {_to_json(delta.text)}}}')
        return b""

    def closing(self) -> bytes:
        """The last chunk of every choice, usage if it was asked for, and `[DONE]`."""
        completion = self._completion
        events = []
        for index, outcome in enumerate(completion.outcomes):
            report = completion.report(index).model_dump_json()
            end = f'"finish_reason": "{outcome.finish_reason}", "ponder": {report}'
            events.append(self._event(index, "{}", end=end))
        if self._with_usage:
            usage = completion.usage().model_dump_json()
            events.append(f'{self._head}[], "usage": {usage}}}\n\n'.encode())
        return b"".join([*events, b"data: [DONE]\n\n"])

    def _event(
        self, index: int, delta: str, logprobs: str = "null", end: str = '"finish_reason": null'
    ) -> bytes:
        """One event from encoded parts; a choice's first one is preceded by its role."""
        opening = ""
        if not self._opened[index]:
            self._opened[index] = True
            opening = self._choice(index, '{"role": "assistant", "content": ""}')
        return (opening + self._choice(index, delta, logprobs, end)).encode()

    def _choice(
        self, index: int, delta: str, logprobs: str = "null", end: str = '"finish_reason": null'
    ) -> str:
        choice = f'{{"index": {index}, "delta": {delta}, "logprobs": {logprobs}, {end}}}'
        return f"{self._head}[{choice}]{self._tail}"


def _sampling(request: ChatCompletionRequest, model: ServedModel) -> Sampling:
    """The request's rules over the model's own recommendations over neutral defaults."""
    chosen = dict(model.tokenizer.sampling_defaults)
    for name in ("temperature", "top_p", "top_k", "min_p", "repetition_penalty"):
        value = getattr(request, name)
        if value is not None:
            chosen[name] = value
    chosen["top_k"] = max(0, int(chosen.get("top_k", 0)))
    return Sampling(
        max_tokens=0,  # set per segment by the thought
        **chosen,  # type: ignore[arg-type]
        presence_penalty=request.presence_penalty,
        frequency_penalty=request.frequency_penalty,
        seed=None if request.seed is None else request.seed & _SEED_MASK,
        ignore_eos=request.ignore_eos,
        logprobs=(request.top_logprobs or 0) if request.logprobs else None,
        logit_bias=request.logit_bias or {},
        chunk_tokens=1 if request.stream else _WHOLE_CHUNK_TOKENS,
    )


def _choice_logprobs(
    completion: Completion, entries: Sequence[TokenLogprob]
) -> ChoiceLogprobs | None:
    """None unless they were asked for."""
    if not completion.request.logprobs:
        return None
    token_bytes = completion.model.tokenizer.token_bytes
    wanted = completion.request.top_logprobs or 0

    def top(token_id: int, logprob: float) -> TopLogprob:
        raw = token_bytes(token_id)
        return TopLogprob(
            token=raw.decode("utf-8", errors="replace"), logprob=logprob, bytes=list(raw)
        )

    return ChoiceLogprobs(
        content=[
            TokenLogprobEntry(
                **top(entry.token_id, entry.logprob).model_dump(),
                top_logprobs=[top(*other) for other in entry.top[:wanted]],
            )
            for entry in entries
        ]
    )
