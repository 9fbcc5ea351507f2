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
from collections.abc import Callable, Sequence
from dataclasses import replace

from ponder.engine.base import Engine, Sampling, Vocabulary
from ponder.thought.answer import AnswerDelta, AnswerWriter
from ponder.thought.budget import Plan
from ponder.thought.errors import AnswerDidNotFit, NoAnswerProduced
from ponder.thought.format import Close, CompiledFormat
from ponder.thought.outcome import EndCause, Outcome, ThoughtDelta
from ponder.thought.reader import ThoughtReader, Verdict
from ponder.thought.segment import AnswerRules, Segment, gather, segment_seed

__all__ = ["AnswerRules", "Emit", "EndCause", "Outcome", "Thought", "ThoughtDelta", "gather"]

Emit = Callable[[ThoughtDelta | AnswerDelta], None]

_LEAST_ROOM = 16  # tokens: who leaves an answer less must reckon with a blank that fills it
_LENGTH_SOURCES = ("max_completion_tokens", "context")


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
        self._segments: list[Segment] = []
        self._before_answer = 0  # tokens of `answer_tokens` that precede the answer: markers, EOS
        self.outcome = Outcome()

    @property
    def spent_tokens(self) -> int:
        """Completion tokens; of a thought that has not come to its end, all that were read."""
        if self.outcome.ended_at is not None:
            return self.outcome.completion_tokens
        read = sum(len(segment.sampled) for segment in self._segments)
        return read + self.outcome.forced_tokens + self.outcome.retry_tokens

    async def run(self, emit: Emit) -> Outcome:
        """Live the life. Raises `NoAnswerProduced`, `EngineError`."""
        try:
            segment = None
            if self._plan.budget > 0:
                segment = await self._think(emit)
            else:
                self.outcome.end_cause = "disabled"
            await self._answer(segment, emit)
            self.outcome.ended_at = time.perf_counter()
            return self.outcome
        finally:
            for segment in self._segments:
                await segment.stream.aclose()

    # -- think -----------------------------------------------------------------------------

    async def _think(self, emit: Emit) -> Segment | None:
        """Read the thought to its end; the segment if the answer goes on in it, else None."""
        assert self._form is not None and self._close is not None
        merged, plan = self._merged(), self._plan
        reader = ThoughtReader(
            self._form,
            self._vocabulary,
            budget=plan.budget,
            grace=plan.grace,
            room=plan.allowance - plan.reserve - len(self._close.ids),
        )
        segment = self._request(self._thought_sampling(merged))
        verdict, read = Verdict.MORE, 0
        while verdict is Verdict.MORE and segment.finish is None:
            await self._read(segment)
            for token_id in segment.sampled[read : len(segment.sampled) - segment.at_eos]:
                verdict = reader.feed(token_id)
                read += 1
                if verdict is not Verdict.MORE:
                    break
            if text := reader.take_text():
                emit(ThoughtDelta(text))
            if reader.opened:
                segment.forget(read)
        self.outcome.thought_ended_at = time.perf_counter()

        if reader.opened and verdict is not Verdict.ENDED:
            self._cut(reader, segment, verdict, self._close, emit)
            await segment.stream.aclose()
            return None
        if not merged and verdict is not Verdict.MORE:
            segment.truncate(read)
        if reader.opened:
            self._ended(reader, segment.sampled[:read])
            self._feed(segment, read)
        else:
            self._feed(segment, 0)  # nothing was thought: all of it is the answer's
        if merged or segment.finish is not None:
            return segment
        self._prompt += segment.sampled
        await segment.stream.aclose()
        return None

    def _ended(self, reader: ThoughtReader, read: Sequence[int]) -> None:
        """The model ended the thought itself with the last of the tokens that were read."""
        self.outcome.thinking_tokens = len(reader.thinking)
        self.outcome.audited_tokens = len(read) - reader.overhead - self._ending_tokens(read)
        self.outcome.answer_tokens = self._before_answer = len(read) - len(reader.thinking)
        self._writer.feed_text(reader.answer_text, sampled=True)

    def _ending_tokens(self, read: Sequence[int]) -> int:
        """How many of the last tokens an end marker takes."""
        assert self._form is not None
        markers = [m for m in (self._form.end, self._form.tool_call) if m is not None]
        if read[-1] in [marker.token_id for marker in markers]:
            return 1
        tail, taken = b"", 0
        while taken < len(read) and not any(m.text.encode() in tail for m in markers):
            taken += 1
            tail = self._vocabulary.token_bytes(read[-taken]) + tail
        return taken

    def _cut(
        self, reader: ThoughtReader, segment: Segment, verdict: Verdict, close: Close, emit: Emit
    ) -> None:
        """We end the thought: the budget is spent, or the model stopped without a marker."""
        outcome = self.outcome
        natural = verdict is Verdict.MORE and reader.settle() and segment.at_eos
        if text := reader.take_text():
            emit(ThoughtDelta(text))
        if not natural:
            starved = reader.starved or self._plan.source in _LENGTH_SOURCES
            outcome.end_cause = "length" if starved else "budget"
        outcome.thinking_tokens = len(reader.thinking)
        outcome.answer_tokens = self._before_answer = reader.overhead + natural
        outcome.forced_tokens = len(close.ids)
        outcome.answer_forced = True
        before = len(self._prompt) + reader.overhead + len(close.ids)
        self._prompt += [*segment.sampled[: reader.overhead], *reader.thinking, *close.ids]
        outcome.audited_tokens = len(self._prompt) - before
        self._writer.feed_text(close.shown)

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
        whole = replace(
            self._sampling,
            max_tokens=plan.allowance,
            chunk_tokens=gather(plan.budget, self._sampling.chunk_tokens),
        )
        if merged:
            return whole
        markers = (form.end, form.tool_call)
        stops = tuple(m.token_id for m in markers if m is not None and m.token_id is not None)
        masked = plan.min_thinking and plan.min_thinking + (form.opened_by == "model")
        return replace(whole, min_tokens=masked, stop_token_ids=stops)

    # -- answer ----------------------------------------------------------------------------

    async def _answer(self, segment: Segment | None, emit: Emit) -> None:
        """Read the answer; one retry if it comes out empty."""
        if segment is None:
            segment = self._request(
                self._answer_sampling(self._rules.min_tokens - self._answered())
            )
        await self._read_answer(segment, emit)
        if self._empty(segment):
            await self._retry(segment, emit)
        self._show(self._writer.take(last=True), emit)

    async def _retry(self, segment: Segment, emit: Emit) -> None:
        """Go on after the blank, with EOS masked until there is one."""
        outcome = self.outcome
        if segment.finish == "stop":
            segment.truncate(len(segment.sampled) - 1)
            outcome.answer_tokens -= 1
            outcome.retry_tokens += 1
        if self._left() > 0:
            self._prompt += segment.sampled
            least = max(1, self._rules.min_tokens - self._answered())
            segment = self._request(self._answer_sampling(least))
            await self._read_answer(segment, emit)
        if self._empty(segment):
            raise self._failed()

    def _failed(self) -> NoAnswerProduced:
        """Why there is no answer: the request left it no room, or the model had none."""
        outcome, most = self.outcome, self._plan.max_answer
        bound = most is not None and self._answered() >= most
        limit = "ponder.max_answer_tokens" if bound else "max_completion_tokens"
        remedy = f"raise {limit}, or sample with a higher temperature"
        room = self._answered() + outcome.retry_tokens
        if self._left() <= 0 and room < _LEAST_ROOM:
            outcome.failure = AnswerDidNotFit(
                f"no more than {room} tokens were left for an answer, and the model began it with "
                f"blank: {remedy}",
                limit,
            )
        else:
            outcome.failure = NoAnswerProduced(
                f"the model produced no answer in {outcome.completion_tokens} tokens: {remedy}"
            )
        return outcome.failure

    async def _read_answer(self, segment: Segment, emit: Emit) -> None:
        """Feed the writer until the engine finishes, a stop string appears or the cap is hit.

        A segment that has nothing left to give is never started: its request costs nothing.
        """
        while not self._writer.stopped and segment.finish is None and self._left() > 0:
            self._show(self._writer.take(), emit)
            read = len(segment.sampled)
            await self._read(segment)
            self._feed(segment, read)
        ended = self._writer.stopped or segment.finish == "stop"
        self.outcome.finish_reason = "stop" if ended else "length"
        await segment.stream.aclose()

    def _feed(self, segment: Segment, start: int) -> None:
        """Give the writer the tokens sampled from `start` on, up to the cap."""
        outcome, writer = self.outcome, self._writer
        cap = start + max(0, self._left())
        if cap < len(segment.sampled):
            segment.truncate(cap, "length")
        last = len(segment.sampled) - (segment.finish == "stop")  # the stop token is no text
        for index in range(start, len(segment.sampled)):
            if writer.stopped:
                return
            outcome.answer_tokens += 1
            if index < last:
                writer.feed(segment.sampled[index], segment.logprob(index))
        segment.forget(len(segment.sampled))

    def _empty(self, segment: Segment) -> bool:
        """No answer came, and not by the user's own stop string or stop token."""
        if self._writer.stopped or not self._writer.blank:
            return False
        return segment.finish != "stop" or segment.sampled[-1] not in self._rules.stop_token_ids

    def _left(self) -> int:
        """Tokens the answer may still take."""
        left = self._plan.allowance - self.outcome.completion_tokens
        if self._plan.max_answer is not None:
            left = min(left, self._plan.max_answer - self._answered())
        return left

    def _answered(self) -> int:
        return self.outcome.answer_tokens - self._before_answer

    def _answer_sampling(self, min_tokens: int) -> Sampling:
        left = self._left()
        return replace(
            self._sampling,
            max_tokens=left,
            min_tokens=max(0, min(min_tokens, left)),
            stop_token_ids=self._rules.stop_token_ids,
        )

    def _show(self, delta: AnswerDelta | None, emit: Emit) -> None:
        if delta is None:
            return
        if self.outcome.first_answer_at is None:
            self.outcome.first_answer_at = time.perf_counter()
        emit(delta)

    # -- engine ----------------------------------------------------------------------------

    def _request(self, sampling: Sampling) -> Segment:
        """A new engine request that goes on from the prompt as it is now."""
        number = len(self._segments)
        sampling = replace(sampling, seed=segment_seed(sampling.seed, number))
        stream = self._engine.generate(list(self._prompt), sampling, f"{self._request_id}-{number}")
        segment = Segment(stream, self._vocabulary.eos_token_ids)
        self._segments.append(segment)
        return segment

    async def _read(self, segment: Segment) -> None:
        chunk = await segment.read()
        if self.outcome.first_token_at is None:
            self.outcome.first_token_at = time.perf_counter()
        if chunk.cached_tokens and len(self._segments) == 1:
            self.outcome.cached_tokens = chunk.cached_tokens
