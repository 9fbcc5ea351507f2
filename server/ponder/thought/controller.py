"""The life of a thought: think → close → answer.

    open ── end marker ──────────────→ answer     natural: nothing is appended
      ├─── budget spent ─→ close ────→ answer     the close text is appended, never sampled
      └─── EOS in the thought → close → answer

Thinking and answering are one engine request with the whole allowance, so that a thought which
ends by itself pays no second admission. At a cut the request is aborted and re-entered with the
thought and the close text as its prompt, which the prefix cache has seen. Where the answer has
sampling rules of its own, the two are separate requests from the start.

The same code runs in serving, in rollouts, in calibration and in evaluation.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from ponder.engine.base import Chunk, Engine, Sampling, TokenLogprob, Vocabulary
from ponder.thought.answer import AnswerDelta, AnswerWriter
from ponder.thought.budget import Plan
from ponder.thought.errors import NoAnswerProduced
from ponder.thought.format import Close, CompiledFormat
from ponder.thought.reader import ThoughtReader, Verdict

EndCause = Literal["natural", "budget", "length", "disabled"]
Emit = Callable[["ThoughtDelta | AnswerDelta"], None]

_LENGTH_SOURCES = ("max_completion_tokens", "context")
_SEED_STEP = 0x9E3779B97F4A7C15  # 2^64 / golden ratio: re-entries get seeds far from each other
_SEED_MASK = (1 << 63) - 1


@dataclass(frozen=True, slots=True)
class ThoughtDelta:
    """Text of the thought that no later cut can take back."""

    text: str


@dataclass(slots=True, kw_only=True)
class Outcome:
    """What happened to one thought. Token counts are exact, from token ids.

    completion = thinking + forced + answer + retry. Sampled markers and EOS count as answer.
    `retry_tokens` are sampled tokens that a retry discarded. The `*_at` are `time.perf_counter`
    seconds, None for what did not happen.
    """

    end_cause: EndCause = "natural"
    finish_reason: Literal["stop", "length"] = "stop"
    thinking_tokens: int = 0
    forced_tokens: int = 0
    answer_tokens: int = 0
    retry_tokens: int = 0
    cached_tokens: int = 0
    answer_forced: bool = False
    first_token_at: float | None = None
    thought_ended_at: float | None = None
    first_answer_at: float | None = None

    @property
    def completion_tokens(self) -> int:
        return self.thinking_tokens + self.forced_tokens + self.answer_tokens + self.retry_tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerRules:
    """Sampling rules that hold for the answer and never for the thought."""

    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    min_tokens: int = 0


@dataclass(slots=True)
class _Reading:
    """An engine request being read: what it sampled so far and how it ended."""

    stream: AsyncGenerator[Chunk, None]
    sampled: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    finish: Literal["stop", "length"] | None = None
    at_eos: int = 0  # 1 when the last sampled token is EOS, which is no part of any text

    def logprob(self, index: int) -> TokenLogprob | None:
        return self.logprobs[index] if self.logprobs else None


class Thought:
    """One thought and its answer on one engine.

    `prompt` ends where the model goes on: inside the thought when `plan.budget` > 0 and the
    template opens it; after a closed thought, or without one, when `plan.budget` is 0, in which
    case `shown_prefix` is prompt text that belongs to the answer. `sampling` holds for both
    segments; its `max_tokens`, `min_tokens` and `stop_token_ids` are set here.

    `run` calls `emit` with text as it becomes certain and never waits for whoever reads it, so a
    slow reader cannot make the engine run past the budget. Cancelling `run` aborts the engine's
    request.
    """

    def __init__(
        self,
        engine: Engine,
        vocabulary: Vocabulary,
        form: CompiledFormat | None,
        *,
        prompt: Sequence[int],
        plan: Plan,
        sampling: Sampling,
        rules: AnswerRules,
        request_id: str,
        close: Close | None = None,
        shown_prefix: str = "",
    ) -> None:
        self._engine = engine
        self._vocabulary = vocabulary
        self._form = form
        self._prompt = list(prompt)
        self._plan = plan
        self._sampling = sampling
        self._rules = rules
        self._request_id = request_id
        self._close = close or (form.close if form else None)
        self._writer = AnswerWriter(vocabulary, rules.stop)
        self._writer.feed_text(shown_prefix)
        self._segments = 0
        self._streams: list[AsyncGenerator[Chunk, None]] = []
        self.outcome = Outcome()

    async def run(self, emit: Emit) -> Outcome:
        """Live the life. Raises `NoAnswerProduced`, `EngineError`."""
        try:
            reading = None
            if self._plan.budget > 0:
                reading = await self._think(emit)
            else:
                self.outcome.end_cause = "disabled"
            await self._answer(reading, emit)
            return self.outcome
        finally:
            for stream in self._streams:
                await stream.aclose()

    # -- think -----------------------------------------------------------------------------

    async def _think(self, emit: Emit) -> _Reading | None:
        """Read the thought to its end; the reading if the answer goes on in it, else None."""
        assert self._form is not None
        merged = self._merged()
        plan = self._plan
        reader = ThoughtReader(self._form, self._vocabulary, budget=plan.budget, grace=plan.grace)
        reading = self._request(self._prompt, self._thought_sampling(merged))
        verdict, read = Verdict.MORE, 0
        async for chunk in reading.stream:
            self._take(reading, chunk)
            while verdict is Verdict.MORE and read < len(reading.sampled) - reading.at_eos:
                verdict = reader.feed(reading.sampled[read])
                read += 1
            if text := reader.take_text():
                emit(ThoughtDelta(text))
            if verdict is not Verdict.MORE:
                break
        self.outcome.thought_ended_at = time.perf_counter()
        if not reader.opened:
            verdict = Verdict.SKIPPED
        if verdict is Verdict.ENDED or verdict is Verdict.SKIPPED:
            self._ended(reader, reading, read, verdict)
            if merged:
                self._feed(reading, read)
                return reading
            self.outcome.retry_tokens += reading.at_eos
            self._prompt += reading.sampled[:read]
        else:
            self._cut(reader, reading, verdict)
        await reading.stream.aclose()
        return None

    def _ended(self, reader: ThoughtReader, reading: _Reading, read: int, verdict: Verdict) -> None:
        """The model ended the thought itself, or never opened one; `read` tokens are settled."""
        outcome = self.outcome
        outcome.thinking_tokens = len(reader.thinking)
        outcome.answer_tokens = read - len(reader.thinking)
        if verdict is Verdict.SKIPPED:
            for index in range(read):
                self._writer.feed(reading.sampled[index], reading.logprob(index))
        else:
            self._writer.feed_text(reader.answer_text)

    def _cut(self, reader: ThoughtReader, reading: _Reading, verdict: Verdict) -> None:
        """We end the thought: the budget is spent, or the model stopped without a marker."""
        assert self._close is not None
        outcome = self.outcome
        if verdict is Verdict.MORE:
            reader.settle()
        if verdict is Verdict.OVER or not reading.at_eos:
            starved = verdict is Verdict.MORE or self._plan.source in _LENGTH_SOURCES
            outcome.end_cause = "length" if starved else "budget"
            at_eos = 0
        else:
            at_eos = 1
        outcome.thinking_tokens = len(reader.thinking)
        outcome.answer_tokens = reader.overhead + at_eos
        outcome.forced_tokens = len(self._close.ids)
        outcome.answer_forced = True
        opening = reading.sampled[: reader.overhead]
        self._prompt += [*opening, *reader.thinking, *self._close.ids]
        self._writer.feed_text(self._close.shown)

    def _merged(self) -> bool:
        """One request for both, unless the answer has rules that the thought must not see."""
        sampling, rules = self._sampling, self._rules
        return not (
            self._plan.min_thinking
            or rules.stop_token_ids
            or rules.min_tokens
            or sampling.presence_penalty
            or sampling.frequency_penalty
            or sampling.repetition_penalty != 1.0
        )

    def _thought_sampling(self, merged: bool) -> Sampling:
        plan, form = self._plan, self._form
        assert form is not None
        gathered = gather(plan.budget, self._sampling.chunk_tokens)
        if merged:
            return replace(self._sampling, max_tokens=plan.allowance, chunk_tokens=gathered)
        markers = (form.end, form.tool_call)
        stops = tuple(m.token_id for m in markers if m is not None and m.token_id is not None)
        return replace(
            self._sampling,
            max_tokens=plan.allowance,
            min_tokens=plan.min_thinking,
            stop_token_ids=stops,
            chunk_tokens=gathered,
        )

    # -- answer ----------------------------------------------------------------------------

    async def _answer(self, reading: _Reading | None, emit: Emit) -> None:
        """Read the answer; one retry if it comes out empty."""
        if reading is None:
            reading = self._request(self._prompt, self._answer_sampling(self._rules.min_tokens))
        await self._read_answer(reading, emit)
        if self._writer.blank and not self._stopped_by_user(reading):
            await self._retry(reading, emit)
        if (delta := self._writer.take(last=True)) is not None:
            self._show(delta, emit)

    async def _retry(self, reading: _Reading, emit: Emit) -> None:
        """Go on after the blank, with EOS masked for one token."""
        outcome = self.outcome
        if reading.finish == "stop":
            reading.sampled.pop()
            outcome.answer_tokens -= 1
            outcome.retry_tokens += 1
        if self._left() > 0:
            self._prompt += reading.sampled
            reading = self._request(self._prompt, self._answer_sampling(1))
            await self._read_answer(reading, emit)
        if self._writer.blank and not self._stopped_by_user(reading):
            raise NoAnswerProduced(
                f"the model produced no answer, in {outcome.answer_tokens} answer tokens and one "
                f"retry: raise max_completion_tokens, or sample with a higher temperature",
            )

    async def _read_answer(self, reading: _Reading, emit: Emit) -> None:
        """Feed the writer until the engine finishes, a stop string appears or the cap is hit."""
        while not self._enough(reading) and reading.finish is None:
            if (delta := self._writer.take()) is not None:
                self._show(delta, emit)
            read = len(reading.sampled)
            chunk = await anext(reading.stream)
            self._take(reading, chunk)
            self._feed(reading, read)
        self.outcome.finish_reason = self._finish_reason(reading)
        await reading.stream.aclose()

    def _feed(self, reading: _Reading, start: int) -> None:
        """Give the writer the tokens sampled from `start` on, up to the cap."""
        outcome, writer = self.outcome, self._writer
        end = len(reading.sampled)
        last_is_stop = reading.finish == "stop"
        for index in range(start, end):
            if writer.stopped or self._left() <= 0:
                del reading.sampled[index:]
                reading.finish = None if writer.stopped else "length"
                return
            outcome.answer_tokens += 1
            if not (last_is_stop and index == end - 1):
                writer.feed(reading.sampled[index], reading.logprob(index))

    def _enough(self, reading: _Reading) -> bool:
        return self._writer.stopped or (reading.finish is None and self._left() <= 0)

    def _finish_reason(self, reading: _Reading) -> Literal["stop", "length"]:
        if self._writer.stopped or reading.finish == "stop":
            return "stop"
        return "length"

    def _stopped_by_user(self, reading: _Reading) -> bool:
        """The user's own stop rule may leave the answer empty."""
        if self._writer.stopped:
            return True
        return reading.finish == "stop" and reading.sampled[-1] in self._rules.stop_token_ids

    def _left(self) -> int:
        """Tokens the answer may still take."""
        left = self._plan.allowance - self.outcome.completion_tokens
        if self._plan.max_answer is not None:
            left = min(left, self._plan.max_answer - self.outcome.answer_tokens)
        return left

    def _answer_sampling(self, min_tokens: int) -> Sampling:
        left = self._left()
        return replace(
            self._sampling,
            max_tokens=left,
            min_tokens=min(min_tokens, left),
            stop_token_ids=self._rules.stop_token_ids,
        )

    def _show(self, delta: AnswerDelta, emit: Emit) -> None:
        if self.outcome.first_answer_at is None:
            self.outcome.first_answer_at = time.perf_counter()
        emit(delta)

    # -- engine ----------------------------------------------------------------------------

    def _request(self, prompt: Sequence[int], sampling: Sampling) -> _Reading:
        seed = sampling.seed
        if seed is not None and self._segments:
            sampling = replace(sampling, seed=(seed + self._segments * _SEED_STEP) & _SEED_MASK)
        request_id = f"{self._request_id}-{self._segments}"
        self._segments += 1
        stream = self._engine.generate(list(prompt), sampling, request_id)
        self._streams.append(stream)
        return _Reading(stream)

    def _take(self, reading: _Reading, chunk: Chunk) -> None:
        """Record a chunk."""
        if self.outcome.first_token_at is None and chunk.token_ids:
            self.outcome.first_token_at = time.perf_counter()
        if chunk.cached_tokens and self._segments == 1:
            self.outcome.cached_tokens = chunk.cached_tokens
        reading.sampled.extend(chunk.token_ids)
        if chunk.logprobs is not None:
            reading.logprobs.extend(chunk.logprobs)
        reading.finish = chunk.finish
        if chunk.finish == "stop" and reading.sampled[-1] in self._vocabulary.eos_token_ids:
            reading.at_eos = 1


def gather(budget: int, most: int) -> int:
    """How many tokens, at most `most`, the engine may gather before it reports a thought.

    Engines report the first token and then every n-th: where n divides the budget, the report
    that shows the cut comes exactly when it is due and nothing is generated past it.
    """
    for size in range(most, most // 2, -1):
        if budget % size == 0:
            return size
    return most
