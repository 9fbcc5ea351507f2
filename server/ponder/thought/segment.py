"""One engine request of a thought, and the rules by which requests differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from ponder.engine.protocol import FORBIDDEN, Chunk, Grammar, Sampling, TokenLogprob, Vocabulary
from ponder.thought.answer import AnswerWriter
from ponder.thought.budget import Plan
from ponder.thought.calls import CallRules, CallWriter
from ponder.thought.format import CompiledFormat
from ponder.thought.outcome import Outcome

_SEED_STEP = 0x9E3779B97F4A7C15  # 2^64 / golden ratio: re-entries get seeds far from each other
_SEED_MASK = (1 << 63) - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerRules:
    """Rules that hold for the answer and never for the thought.

    A `verbatim` answer is shown as it was sampled: with its leading blank, or empty. A `grammar`
    begins behind the closed thought and also decides when the answer ends; with `free_text`, it
    allows any text beside the calls that it holds. `calls` are looked for where a request has
    tools.
    """

    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    min_tokens: int = 0
    verbatim: bool = False
    grammar: Grammar | None = None
    free_text: bool = False
    calls: CallRules | None = None

    def takes_empty(self, segment: Segment) -> bool:
        """Whether an empty answer counts: verbatim, by a grammar, or before a user's stop token.

        A grammar that leaves free text would allow no answer at all.
        """
        stopped = segment.finish == "stop" and segment.sampled[-1] in self.stop_token_ids
        held = self.grammar is not None and not self.free_text
        return self.verbatim or held or stopped

    def heads(self, form: CompiledFormat | None) -> bool:
        """Whether the grammar begins in front of the header that the format needs."""
        return bool(self.calls and form and form.call_close)

    def writer(self, vocabulary: Vocabulary, form: CompiledFormat | None) -> AnswerWriter:
        """The writer of one answer. It looks for no markers where a grammar leaves no free text."""
        free = self.grammar is None or self.free_text or self.heads(form)
        markup = form.answer if form and free else None
        if self.calls is not None:
            return CallWriter(vocabulary, self.calls, self.stop, markup=markup)
        return AnswerWriter(vocabulary, self.stop, verbatim=self.verbatim, markup=markup)


@dataclass(slots=True, eq=False)
class Segment:
    """An engine request: what it asks, what it has sampled so far and how it ended.

    `number` counts the requests of one thought from 0. A `shared` request samples both thought and
    answer. `heard` is how many of its tokens are counted already.
    """

    prompt: Sequence[int]
    sampling: Sampling
    number: int
    eos: frozenset[int]
    shared: bool = False
    heard: int = 0
    sampled: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    finish: Literal["stop", "length"] | None = None
    _forgotten: int = 0

    def take(self, chunk: Chunk) -> None:
        """Record what the engine sampled."""
        self.sampled.extend(chunk.token_ids)
        self.finish = chunk.finish
        if chunk.logprobs is not None:
            self.logprobs.extend(chunk.logprobs)

    def truncate(self, size: int, finish: Literal["length"] | None = None) -> None:
        """Forget what was sampled after the first `size` tokens."""
        del self.sampled[size:]
        self.finish = finish

    def logprob(self, index: int) -> TokenLogprob | None:
        return self.logprobs[index - self._forgotten] if self.logprobs else None

    def forget(self, end: int) -> None:
        """Drop the log probabilities before `end`: they take a kilobyte a token."""
        del self.logprobs[: end - self._forgotten]
        self._forgotten = end

    def tell(self, writer: AnswerWriter, start: int, most: int) -> tuple[int, int | None]:
        """Give the writer at most `most` of the tokens sampled from `start` on.

        Returns how many are the answer's; and, where they open another block of thought, how many
        tokens of the request lead up to it.
        """
        cap, index = start + most, start
        last = len(self.sampled) - (self.finish == "stop")  # the stop token is no text
        end = min(cap, len(self.sampled))
        if not self.logprobs and writer.feed_plain(self.sampled[index : min(end, last)]):
            index = max(index, end)
        while index < end and not writer.stopped and writer.opened is None:
            if index < last:
                writer.feed(self.sampled[index], self.logprob(index))
            index += 1
        told = index - start
        if writer.stopped:
            return told, None
        if writer.opened is not None and index < cap:
            return told, index
        if writer.opened is not None or cap < len(self.sampled):
            self.truncate(index, "length")
        self.forget(len(self.sampled))
        return told, None

    @property
    def at_eos(self) -> bool:
        """The last sampled token is an EOS that ended the request: no part of any text."""
        return self.finish == "stop" and self.sampled[-1] in self.eos


class Requests:
    """Makes the engine requests of one thought, and keeps them in order.

    A thought and its answer share a request unless they are to be `apart`, or their rules differ.
    """

    def __init__(
        self,
        plan: Plan,
        sampling: Sampling,
        rules: AnswerRules,
        form: CompiledFormat | None,
        eos: frozenset[int],
        *,
        apart: bool,
    ) -> None:
        self._merged = not apart and may_merge(plan, sampling, rules)
        self.heads = rules.heads(form)
        self.made: list[Segment] = []
        self._plan = plan
        self._sampling = sampling
        self._rules = rules
        self._form = form
        self._eos = eos
        self._mask = dict.fromkeys(form.masked if form and not rules.verbatim else (), FORBIDDEN)

    def lead(self, left: int) -> Sequence[int]:
        """The tokens that begin an answer behind no thought, if that fits into what is `left`."""
        lead = () if self._form is None or self.heads else self._form.lead
        return lead if len(lead) < left else ()

    def for_answer(
        self, prompt: Sequence[int], least: int, left: int, *, again: bool = False
    ) -> Segment:
        """Ask for an answer of at least `least` tokens, where as many are `left`.

        One that is asked for again, since its text was empty, has its header in the prompt.
        """
        rules = replace(self._rules, grammar=None) if again and self.heads else self._rules
        sampling = answer_sampling(self._sampling, rules, least, left, self._mask)
        return self._make(prompt, sampling)

    def for_thought(self, prompt: Sequence[int], outcome: Outcome) -> Segment:
        """Ask for the rest of the thought, and for its answer where they are merged."""
        assert self._form is not None
        sampling = thought_sampling(self._sampling, self._plan, outcome)
        if not self._merged:
            sampling = apart_sampling(sampling, self._plan, self._form, outcome)
        return self._make(prompt, sampling, shared=self._merged)

    def _make(self, prompt: Sequence[int], sampling: Sampling, *, shared: bool = False) -> Segment:
        number = len(self.made)
        sampling = numbered(sampling, number)
        self.made.append(Segment(prompt, sampling, number, self._eos, shared))
        return self.made[-1]


def may_merge(plan: Plan, sampling: Sampling, rules: AnswerRules) -> bool:
    """Whether one request may serve both: the answer has no rules that the thought must not see."""
    return not (
        plan.min_thinking
        or rules.stop_token_ids
        or rules.min_tokens
        or rules.grammar
        or sampling.presence_penalty
        or sampling.frequency_penalty
        or sampling.repetition_penalty != 1.0
    )


def thought_sampling(sampling: Sampling, plan: Plan, outcome: Outcome) -> Sampling:
    """A request for a thought and its answer: all that is left of the allowance."""
    left = max(1, plan.budget - outcome.thinking_tokens)
    return replace(
        sampling,
        max_tokens=plan.allowance - outcome.bounded_tokens,
        chunk_tokens=gather(left, sampling.chunk_tokens),
    )


def apart_sampling(
    sampling: Sampling, plan: Plan, form: CompiledFormat, outcome: Outcome
) -> Sampling:
    """A request for a thought alone: it ends with the markers, but not before the minimum.

    The start marker of a thought that the model opens is one more token.
    """
    stops = tuple(m.token_id for m in form.ends if m.token_id is not None)
    masked = max(0, plan.min_thinking - outcome.thinking_tokens)
    opens = form.opened_by == "model" and not outcome.bounded_tokens
    return replace(sampling, min_tokens=masked + opens if masked else 0, stop_token_ids=stops)


def answer_sampling(
    sampling: Sampling, rules: AnswerRules, least: int, left: int, mask: Mapping[int, float]
) -> Sampling:
    """A request for an answer of at least `least` tokens, where as many are `left`."""
    return replace(
        sampling,
        max_tokens=left,
        min_tokens=max(0, min(least, left)),
        stop_token_ids=rules.stop_token_ids,
        grammar=rules.grammar,
        logit_bias={**sampling.logit_bias, **mask},
    )


def numbered(sampling: Sampling, number: int) -> Sampling:
    """The sampling of request `number`: only the first keeps the seed and scores the prompt."""
    return replace(
        sampling,
        seed=segment_seed(sampling.seed, number),
        prompt_logprobs=None if number else sampling.prompt_logprobs,
    )


def segment_seed(seed: int | None, number: int) -> int | None:
    """The seed of a thought's request `number`: the first keeps the user's own."""
    if seed is None or number == 0:
        return seed
    return (seed + number * _SEED_STEP) & _SEED_MASK


def gather(budget: int, most: int) -> int:
    """How many tokens, at most `most`, the engine may gather before it reports a thought.

    Engines report the first token and then every n-th. Where n divides the budget, the report that
    shows the cut comes exactly when it is due, and nothing is generated past it. Of the n above
    `most` / 2, the result is the one that overshoots least.
    """
    return min(range(most, most // 2, -1), key=lambda size: -budget % size)
