"""The life of a thought: think → close → answer.

    open ── end marker ──────────────→ answer     natural: nothing is appended
      ├─── an exit closes it → close → answer     the close text is appended, never sampled
      └─── EOS in the thought → close → answer
    answer ── start marker ──────────→ open       another block, on what is left of the budget

Thinking and answering are one engine request with the whole allowance, so that a thought which
ends by itself pays no second admission. At a cut the request is aborted and re-entered with thought
and close text as its prompt, which the prefix cache has seen. Where the answer has rules of its
own, thought and answer are separate requests. A request for the answer forbids single-token
markers.

A thought takes tokens and says what to sample next: it knows no engine and no clock. Drivers run
it, `ponder.thought.drive` on an engine and `ponder.training.rollout.drive` in batches, so that the
same code decides in serving, in rollouts and in evaluation.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from copy import deepcopy

from ponder.engine.protocol import CallPart, Chunk, Sampling, Vocabulary
from ponder.thought.answer import AnswerDelta
from ponder.thought.budget import Plan
from ponder.thought.exits.budget import Budget
from ponder.thought.exits.exit import Exit
from ponder.thought.exits.watch import Watch
from ponder.thought.format import Close, CompiledFormat
from ponder.thought.outcome import InterimAnswer, Outcome, ThoughtDelta, no_answer
from ponder.thought.probes import ProbeRequest, Probes
from ponder.thought.reader import ThoughtReader, Verdict
from ponder.thought.segment import AnswerRules, Requests, Segment

Event = ThoughtDelta | AnswerDelta | CallPart | InterimAnswer


class Thought:
    """One thought and its answer, as a state machine.

    `prompt` ends where the model goes on: inside the thought if `plan.budget` > 0 and the template
    opens it. If `plan.budget` is 0, `prompt` ends after a closed thought or has none, and its text
    `shown_prefix` belongs to the answer. `sampling` holds for thought and answer; the thought sets
    `max_tokens`, `min_tokens` and `stop_token_ids`. `exits` close the thought beside its budget.
    `apart` makes thought and answer separate requests in any case.

    `segment` is the engine request to run: `start` sets the first one, and `feed` takes what it
    sampled. When `segment` changes, the driver aborts the request before; when it is None, the
    thought is over, and `outcome.failure` says why there is no answer if there is none. While
    `thinking`, exits can close the thought, which is open or may still open. `tick`, due at
    `wake_at`, asks the exits that wait for a time or for a wake. All three return events that have
    become certain. `now` is in seconds of any one clock.

    `probes` are requests to run beside it, and `feed_probe` takes what they sampled. The driver
    aborts a probe that is no longer among them.

        >>> from ponder.engine.scripted import ByteVocabulary
        >>> from ponder.thought.format import ThoughtFormat
        >>> vocabulary = ByteVocabulary()
        >>> form = CompiledFormat.of(ThoughtFormat(name=""), "template", vocabulary)
        >>> thought = Thought(
        ...     vocabulary, form, prompt=vocabulary.encode("6 * 7?<think>"),
        ...     plan=Plan(requested=4, budget=4, source="request", allowance=99, reserve=9),
        ...     sampling=Sampling(max_tokens=0), rules=AnswerRules(),
        ... )
        >>> thought.start(0.0)
        ()
        >>> thought.feed(Chunk(vocabulary.encode("I multiply")), 0.1)
        (ThoughtDelta(text='I mu'),)
        >>> thought.feed(Chunk(vocabulary.encode("42") + [vocabulary.EOS], "stop"), 0.2)
        (AnswerDelta(text='42', logprobs=()),)
        >>> thought.segment, thought.outcome.end_cause, thought.outcome.thinking_tokens
        (None, 'budget', 4)
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        form: CompiledFormat | None,
        *,
        prompt: Sequence[int],
        plan: Plan,
        sampling: Sampling,
        rules: AnswerRules,
        close: Close | None = None,
        shown_prefix: str = "",
        exits: Sequence[Exit] = (),
        apart: bool = False,
    ) -> None:
        self.outcome = Outcome()
        self._vocabulary = vocabulary
        self._form = form
        self._prompt = prompt  # replaced where it grows: requests keep theirs
        self._plan = plan
        self._rules = rules
        self._close = close or (form.close if form else None)
        eos = vocabulary.eos_token_ids
        self._requests = Requests(plan, sampling, rules, form, eos, apart=apart)
        self._writer = rules.writer(vocabulary, form)
        self._writer.feed_text(shown_prefix)
        self._reader = None
        self._probes = None
        if form and self._close:
            room = plan.allowance - plan.reserve - len(self._close.ids)
            watch, most = Watch([Budget.of(plan, room), *exits]), len(prompt) + plan.allowance
            self._reader = ThoughtReader(form, vocabulary, watch, room=room)
            self._probes = Probes(vocabulary, form, sampling, most, self.outcome)
        self.thinking = plan.budget > 0
        self._retried = False
        self._before_answer = 0  # tokens of `answer_tokens` that precede the answer: markers, EOS
        self.segment: Segment | None = None

    @property
    def spent_tokens(self) -> int:
        """Completion tokens; while the thought runs, all tokens read so far."""
        if self.outcome.ended_at is not None:
            return self.outcome.completion_tokens
        read, outcome = sum(len(segment.sampled) for segment in self._requests.made), self.outcome
        return read + outcome.forced_tokens + outcome.retry_tokens + outcome.probe_tokens

    @property
    def thinking_ids(self) -> Sequence[int]:
        """The tokens of the thought so far."""
        return self._reader.thinking if self._reader else ()

    @property
    def settled(self) -> bool:
        """Whether every sampled token is decided: none waits for the tokens after it."""
        return self._reader is None or self._reader.settled

    def start(self, now: float) -> Sequence[Event]:
        """Ask for the first request."""
        if self._plan.budget == 0:
            self.outcome.end_cause = "unread" if self._plan.source == "unread" else "disabled"
            return self._ask_for_answer(now)
        self._ask_for_thought()
        return self.tick(now)

    def feed(self, chunk: Chunk, now: float) -> Sequence[Event]:
        """Take what `segment` sampled."""
        segment = self._requests.made[-1]
        read = len(segment.sampled)
        segment.take(chunk)
        if self.outcome.first_token_at is None or chunk.cached_tokens:
            self.outcome.note(chunk, now, first=segment.number == 0)
        if self.thinking:
            return self._think(segment, read, now)
        if (reopened := self._hear(segment, read)) is not None:
            return self._reopen(segment, reopened, now)
        return self._answer(segment, now)

    @property
    def wake_at(self) -> float:
        """When `tick` is due; infinite where no exit waits for a time."""
        reader = self._open_reader
        return math.inf if reader is None else reader.watch.time

    def tick(self, now: float) -> Sequence[Event]:
        """Ask the exits that wait for a time, or to be woken, while the thought is open."""
        reader = self._open_reader
        if reader is None:
            return ()
        reader.at.now = now
        if reader.wake():
            return self._cut(reader, now)
        self._probe(reader)
        return ()

    @property
    def probes(self) -> Sequence[ProbeRequest]:
        return self._probes.running if self._probes else ()

    def feed_probe(self, probe: ProbeRequest, chunk: Chunk | None, now: float) -> Sequence[Event]:
        """Take what a probe sampled; `chunk` is None where the engine failed it."""
        reader, probes = self._open_reader, self._probes
        found = probes.take(probe, chunk) if probes else None
        if reader is None or found is None:
            return ()
        reader.at.now = now
        said = InterimAnswer(found.text, found.tokens, found.whole)
        if reader.hear(probe.asked_by, found):
            return (said, *self._cut(reader, now))
        self._probe(reader)
        return (said,)

    def _probe(self, reader: ThoughtReader) -> None:
        """Make the probes that exits want."""
        if self._probes and reader.watch.wanted:
            before = [*self._prompt, *self._requests.made[-1].sampled[: reader.opening]]
            self._probes.make(reader.watch, reader.at, before, reader.begun)

    @property
    def _open_reader(self) -> ThoughtReader | None:
        reader = self._reader if self.thinking and self.segment else None
        return reader if reader and reader.opened else None

    def fork(self) -> Thought:
        """Another thought that has lived the same life so far."""
        form, prompts = self._form, [segment.prompt for segment in self._requests.made]
        markup = form.answer if form else None
        shared = (self._vocabulary, form, markup, self._close, self._plan, self._prompt, *prompts)
        return deepcopy(self, {id(part): part for part in shared})

    # -- think -----------------------------------------------------------------------------

    def _think(
        self, segment: Segment, read: int, now: float, verdict: Verdict = Verdict.MORE
    ) -> Sequence[Event]:
        """Read the thought on from token `read`; `verdict` is that on the token before it."""
        reader = self._reader
        assert reader is not None
        reader.at.now = now
        end = len(segment.sampled) - segment.at_eos
        if verdict is Verdict.MORE:
            fed, verdict = reader.read(segment.sampled[read:end])
            read += fed
        self.outcome.thinking_tokens = len(reader.thinking)
        events: Sequence[Event] = reader.events()
        if reader.opened:
            segment.forget(read)
        self._probe(reader)
        if verdict is Verdict.MORE and segment.finish is None:
            return (*events, *self.tick(now)) if now >= reader.watch.time else events
        if reader.opened and verdict is not Verdict.ENDED:
            return (*events, *self._cut(reader, now))
        return (*events, *self._leave(reader, segment, read, verdict, now))

    def _leave(
        self, reader: ThoughtReader, segment: Segment, read: int, verdict: Verdict, now: float
    ) -> Sequence[Event]:
        """The model ended the thought itself after `read` tokens, or never opened one."""
        self._end(now)
        if not segment.shared and verdict is not Verdict.MORE:
            segment.truncate(read)
        begun = not reader.opened or reader.answer_text.strip() or self._requests.heads
        if self._rules.grammar and begun:
            return self._start_over(reader, segment, now)
        if reader.opened:
            self._ended(reader, segment.sampled[:read])
        else:
            read = 0  # nothing was thought: all of it is the answer's
        if (reopened := self._hear(segment, read)) is not None:
            return self._reopen(segment, reopened, now)
        if segment.shared or segment.finish is not None:
            return self._answer(segment, now)
        self._prompt = [*self._prompt, *segment.sampled]
        return self._ask_for_answer(now)

    def _end(self, now: float) -> None:
        """From now on tokens are the answer's."""
        self.thinking = False
        if self._probes:
            self._probes.end()
        self.outcome.thought_ended_at = now

    def _ended(self, reader: ThoughtReader, read: Sequence[int]) -> None:
        """The model ended the thought itself with the last of the tokens that were read."""
        assert self._form is not None
        after = read[reader.opening :]
        ending = self._form.ending_tokens(after, self._vocabulary)
        self.outcome.audited_tokens += len(after) - ending
        self._count(reader, len(read) - (len(reader.thinking) - reader.begun))
        self._writer.feed_text(reader.answer_text, sampled=True)

    def _count(self, reader: ThoughtReader, markers: int) -> None:
        """A block is over: `markers` of its request's tokens precede and end it."""
        self.outcome.thinking_tokens = len(reader.thinking)
        markers -= self._requests.made[-1].heard + reader.within
        self.outcome.audited_tokens += reader.within
        self.outcome.answer_tokens += markers
        self._before_answer += markers

    def _cut(self, reader: ThoughtReader, now: float) -> Sequence[Event]:
        """We end the thought: an exit closes it, or the model stopped without a marker."""
        self._end(now)
        segment, outcome = self._requests.made[-1], self.outcome
        natural = reader.cause is None and reader.settle() and segment.at_eos
        thought: Sequence[Event] = reader.events()
        if not natural and outcome.end_cause == "natural":
            outcome.end_cause = reader.cause or "length"
        self._count(reader, reader.opening + natural)
        return (*thought, *self._append_close(reader, segment, now))

    def _start_over(self, reader: ThoughtReader, segment: Segment, now: float) -> Sequence[Event]:
        """Drop the answer so far, which was sampled without its grammar."""
        if reader.opened:
            self._count(reader, len(segment.sampled) - (len(reader.thinking) - reader.begun))
            return self._append_close(reader, segment, now)
        self.outcome.retry_tokens += len(segment.sampled)
        lead = self._requests.lead(self._left())
        self.outcome.forced_tokens += len(lead)
        self._prompt = [*self._prompt, *lead]
        return self._ask_for_answer(now)

    def _append_close(self, reader: ThoughtReader, segment: Segment, now: float) -> Sequence[Event]:
        outcome, close = self.outcome, self._close
        assert close is not None
        thought = [*segment.sampled[: reader.opening], *reader.thinking[reader.begun :]]
        outcome.audited_tokens += len(thought) - reader.opening
        if self._plan.allowance - outcome.bounded_tokens <= len(close.ids):
            self._retried = True  # a close would leave no room to go on in
            segment.finish = "length"
            return self._answer(segment, now)
        outcome.forced_tokens += len(close.ids)
        outcome.answer_forced = True
        self._prompt = [*self._prompt, *thought, *close.ids]
        self._writer.feed_text(close.shown)
        return self._ask_for_answer(now)

    def _reopen(self, segment: Segment, read: int, now: float) -> Sequence[Event]:
        """Read another block of thought, which the last of `read` tokens opens.

        A request for the answer alone is replaced by one in which the block may end.
        """
        reader, writer, outcome = self._reader, self._writer, self.outcome
        assert reader is not None and writer.opened is not None
        rest, writer.opened = writer.opened, None
        shown = self._shown(writer.events(), now)
        segment.forget(read)
        self.thinking, segment.heard, outcome.reopens = True, read, outcome.reopens + 1
        outcome.finish_reason = "length"  # until the answer ends by itself after all
        reader.at.now = now
        beside = outcome.bounded_tokens - outcome.thinking_tokens
        verdict = reader.reopen(rest, beside, read)
        if segment.shared or verdict is not Verdict.MORE:
            return (*shown, *self._think(segment, read, now, verdict))
        segment.truncate(read)
        self._prompt = [*self._prompt, *segment.sampled]
        reader.opening = 0
        self._ask_for_thought()
        return (*shown, *self.tick(now))

    # -- answer ----------------------------------------------------------------------------

    def _answer(self, segment: Segment, now: float) -> Sequence[Event]:
        """Go on to the engine's end, a stop string or the cap; try an empty answer once more."""
        writer, outcome = self._writer, self.outcome
        shown: Sequence[Event] = ()
        if not writer.stopped and segment.finish is None and self._left() > 0:
            shown = self._shown(writer.events(), now)
            if not writer.stopped:
                return shown
        ended = writer.stopped or segment.finish == "stop"
        outcome.finish_reason = "stop" if ended else "length"
        self.segment, outcome.stop_string = None, writer.stop_string
        if writer.blank and not (writer.stopped or self._rules.takes_empty(segment)):
            return self._retry(segment, now)
        shown = (*shown, *self._shown(writer.events(last=True, cut=segment.finish != "stop"), now))
        outcome.calls, outcome.closes, outcome.ended_at = writer.calls, writer.closes, now
        return shown

    def _retry(self, segment: Segment, now: float) -> Sequence[Event]:
        """Go on after the blank, with EOS masked until there is one."""
        outcome = self.outcome
        if not self._retried:
            self._retried = True
            if segment.finish == "stop":
                segment.truncate(len(segment.sampled) - 1)
                outcome.answer_tokens -= 1
                outcome.retry_tokens += 1
            if self._left() > 0:
                self._prompt = [*self._prompt, *segment.sampled]
                return self._ask_for_answer(now, least=1)
        outcome.failure = no_answer(outcome, self._plan, self._answered(), self._left())
        return ()

    def _hear(self, segment: Segment, start: int) -> int | None:
        """Give the writer the tokens from `start` on; returns how many lead to another thought."""
        told, reopened = segment.tell(self._writer, start, max(0, self._left()))
        self.outcome.answer_tokens += told
        return reopened

    def _left(self) -> int:
        """Tokens the answer may still take."""
        left, most = self._plan.allowance - self.outcome.bounded_tokens, self._plan.max_answer
        return left if most is None else min(left, most - self._answered())

    def _answered(self) -> int:
        return self.outcome.answer_tokens - self._before_answer

    def _shown(self, events: Sequence[Event], now: float) -> Sequence[Event]:
        if events and self.outcome.first_answer_at is None:
            self.outcome.first_answer_at = now
        return events

    # -- requests --------------------------------------------------------------------------

    def _ask_for_answer(self, now: float, least: int = 0) -> Sequence[Event]:
        left, again = self._left(), least > 0
        least = max(least, self._rules.min_tokens - self._answered())
        self.segment = self._requests.for_answer(self._prompt, least, left, again=again)
        return self._answer(self.segment, now)

    def _ask_for_thought(self) -> None:
        self.segment = self._requests.for_thought(self._prompt, self.outcome)
        self.thinking = True
