"""Writes the answer: hides the blank before it, stops at the user's stop strings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ponder.engine.base import TokenLogprob, Vocabulary
from ponder.thought.text import TextDecoder, overlap


@dataclass(frozen=True, slots=True)
class AnswerDelta:
    """Text that may be shown now, with the log probabilities of the tokens that made it."""

    text: str
    logprobs: tuple[TokenLogprob, ...] = ()


class AnswerWriter:
    """Turns answer tokens into text that can be shown.

    Leading blank is the format's separator, not the answer: it is held back and dropped, so that
    the retry of an empty answer is invisible. Text that may become a stop string is held until it
    is decided; the stop string itself is never shown.
    """

    def __init__(self, vocabulary: Vocabulary, stop: Sequence[str] = ()) -> None:
        self._vocabulary = vocabulary
        self._decoder = TextDecoder(vocabulary)
        self._stop = tuple(stop)
        self._held = ""
        self._offset = 0  # characters fed so far
        self._logprobs: list[tuple[int, TokenLogprob]] = []  # (offset of its text, entry)
        self.shown = 0
        self.stopped = False

    @property
    def blank(self) -> bool:
        """Nothing but blank so far."""
        return not self.shown and not self._held.strip()

    def feed(self, token_id: int, logprob: TokenLogprob | None = None) -> None:
        """Take one token; once `stopped`, what follows is ignored."""
        if self.stopped:
            return
        if logprob is not None:
            self._logprobs.append((self._offset, logprob))
        self.feed_text(self._decoder.feed(token_id))

    def feed_text(self, text: str) -> None:
        """Take text that was not sampled here: an answer prefix, the rest of a marker's token."""
        if self.stopped or not text:
            return
        self._offset += len(text)
        self._held += text
        if not self.shown:
            self._held = self._held.lstrip()
        found = [at for stop in self._stop if (at := self._held.find(stop)) >= 0]
        if found:
            self._offset += min(found) - len(self._held)
            self._held = self._held[: min(found)]
            self.stopped = True

    def take(self, *, last: bool = False) -> AnswerDelta | None:
        """What may be shown now; with `last`, everything that is left."""
        keep = 0
        if not last and not self.stopped:
            keep = max((overlap(self._held, stop) for stop in self._stop), default=0)
        text = self._held[: len(self._held) - keep]
        if not text:
            return None
        self._held = self._held[len(text) :]
        self.shown += len(text)
        return AnswerDelta(text, self._take_logprobs())

    def _take_logprobs(self) -> tuple[TokenLogprob, ...]:
        taken = tuple(entry for offset, entry in self._logprobs if offset < self._end())
        self._logprobs = [pair for pair in self._logprobs if pair[0] >= self._end()]
        return taken

    def _end(self) -> int:
        return self._offset - len(self._held)
