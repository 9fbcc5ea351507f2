"""Probes: sample what a thought would answer if it were closed, while it goes on.

A probe's prompt is the thought so far and the close text; the prefix cache has all full blocks of
the thought. If the thought stopped for its probes, the engine would have to admit it again after
each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from ponder.engine.protocol import FORBIDDEN, Chunk, Sampling, Vocabulary
from ponder.thought.exits.exit import Found, Probe, Progress
from ponder.thought.exits.watch import Watch
from ponder.thought.format import CompiledFormat
from ponder.thought.outcome import Outcome
from ponder.thought.text import TextDecoder

BLOCK = 32
"""Tokens: a multiple of the blocks in which vLLM caches prompts, 16 on GPUs and 32 on CPUs."""
_CHUNK_TOKENS = 8  # no client reads a probe as it is sampled
_LONGEST_CHARACTER = 4  # bytes, and so tokens


@dataclass(slots=True, eq=False)
class ProbeRequest:
    """A probe as an engine request beside the thought's.

    `number` counts the probes of one thought from 0. `asked_by` is the index of the exit that asked
    for it, and `tokens` of the thought precede the close. `logprobs` are those of the alternatives
    to the first token.
    """

    prompt: Sequence[int]
    sampling: Sampling
    number: int
    asked_by: int
    tokens: int
    sampled: list[int] = field(default_factory=list)
    logprobs: tuple[float, ...] = ()


class Probes:
    """The probes of one thought. The driver runs `running`, and aborts a probe that leaves it.

    Forbidden tokens and the cache salt are those of the request's own `sampling`. `most` bounds a
    probe's prompt and answer together, as it bounds those of the thought.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        form: CompiledFormat,
        sampling: Sampling,
        most: int,
        outcome: Outcome,
    ) -> None:
        self.running: tuple[ProbeRequest, ...] = ()
        self._vocabulary = vocabulary
        self._close = form.close
        self._sampling = Sampling(
            max_tokens=0,
            temperature=0.0,
            logit_bias={**sampling.logit_bias, **dict.fromkeys(form.masked, FORBIDDEN)},
            chunk_tokens=_CHUNK_TOKENS,
            cache_salt=sampling.cache_salt,
        )
        self._most = most
        self._outcome = outcome

    def make(self, watch: Watch, at: Progress, before: Sequence[int], begun: int) -> None:
        """Make the probes that exits want, each on the thought as it was when its exit asked.

        `before` is the prompt of the thought's current block; `begun` tokens of the thought lie in
        earlier blocks.
        """
        wanted, watch.wanted = watch.wanted, []
        for asked_by, probe, tokens in wanted:
            if all(running.asked_by != asked_by for running in self.running):
                self._make(probe, asked_by, before, at.thinking[begun:tokens], begun)

    def take(self, request: ProbeRequest, chunk: Chunk | None) -> Found | None:
        """Record what a probe sampled, if it is still wanted. Returns its result once it is over.

        `chunk` is None if the engine failed the probe: the thought goes on without it.
        """
        if request not in self.running:
            return None
        if chunk is None:
            self._outcome.failed_probes += 1
            self._leave(request)
            return None
        self._outcome.probe_tokens += len(chunk.token_ids)
        request.sampled.extend(chunk.token_ids)
        if chunk.logprobs and not request.logprobs:
            request.logprobs = tuple(logprob for _, logprob in chunk.logprobs[0].top)
        if chunk.finish is None:
            return None
        self._leave(request)
        whole = chunk.finish == "stop"
        said = map(self._vocabulary.token_bytes, request.sampled)
        text = b"".join(said).decode(errors="replace")
        return Found(request.tokens, text, whole, request.logprobs)

    def end(self) -> None:
        """Drop all probes: the thought is over."""
        self.running = ()

    def _leave(self, request: ProbeRequest) -> None:
        self.running = tuple(other for other in self.running if other is not request)

    def _make(
        self,
        probe: Probe,
        asked_by: int,
        before: Sequence[int],
        thought: Sequence[int],
        earlier: int,
    ) -> None:
        kept = self._cut(len(before), thought)
        close = self._close.ids if probe.prefix is None else (*self._close.bare.ids, *probe.prefix)
        prompt = [*before, *thought[:kept], *close]
        room = min(probe.max_tokens, self._most - len(prompt))
        if room < 1:
            return
        sampling = replace(self._sampling, max_tokens=room, logprobs=probe.logprobs)
        number, self._outcome.probes = self._outcome.probes, self._outcome.probes + 1
        request = ProbeRequest(prompt, sampling, number, asked_by, earlier + kept)
        self.running = (*self.running, request)

    def _cut(self, before: int, thought: Sequence[int]) -> int:
        """How much of the thought a probe sees: to the last full block, in whole characters."""
        size = len(thought)
        kept = size - (before + size) % BLOCK
        while kept > 0 and self._inside_character(thought[:kept]):
            kept -= 1
        return kept if kept > 0 else size

    def _inside_character(self, ids: Sequence[int]) -> bool:
        decoder = TextDecoder(self._vocabulary)
        for token_id in ids[-_LONGEST_CHARACTER:]:
            decoder.feed(token_id)
        return decoder.pending
