"""Writes the answer: hides the blank before it, stops at the user's stop strings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ponder.engine.protocol import TokenLogprob, Vocabulary
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
    is decided; the stop string itself is never shown. A `verbatim` answer keeps its leading blank.
    """

    def __init__(
        self, vocabulary: Vocabulary, stop: Sequence[str] = (), *, verbatim: bool = False
    ) -> None:
        self._vocabulary = vocabulary
        self._decoder = TextDecoder(vocabulary)
        self._stop = tuple(stop)
        self._verbatim = verbatim
        self._held = ""
        self._offset = 0  # characters fed so far
        self._logprobs: list[tuple[int, TokenLogprob]] = []  # (offset of its text, entry)
        self.shown = 0
        self.blank = True  # nothing but blank was sampled so far
        self.stopped = False

    def feed(self, token_id: int, logprob: TokenLogprob | None = None) -> None:
        """Take one token; once `stopped`, what follows is ignored."""
        if self.stopped:
            return
        if logprob is not None:
            self._logprobs.append((self._offset, logprob))
        self.feed_text(self._decoder.feed(token_id), sampled=True)

    def feed_text(self, text: str, *, sampled: bool = False) -> None:
        """Take text: an answer prefix, or what was `sampled`, without which an answer is blank."""
        if self.stopped or not text:
            return
        if sampled and not text.isspace():
            self.blank = False
        self._offset += len(text)
        self._held += text
        if not self.shown and not self._verbatim:
            self._held = self._held.lstrip()
        found = [at for stop in self._stop if (at := self._held.find(stop)) >= 0]
        if found:
            self._offset += min(found) - len(self._held)
            self._held = self._held[: min(found)]
            self.stopped = True

    def take(self, *, last: bool = False) -> AnswerDelta | None:
        """What may be shown now; with `last`, everything that is left."""
        keep = 0
        if self._stop and not last and not self.stopped:
            keep = max(overlap(self._held, stop) for stop in self._stop)
        text = self._held[: len(self._held) - keep]
        self._held = self._held[len(text) :]
        self.shown += len(text)
        logprobs = self._take_logprobs(last) if self._logprobs and (text or last) else ()
        return AnswerDelta(text, logprobs) if text or logprobs else None

    def _take_logprobs(self, last: bool) -> tuple[TokenLogprob, ...]:
        """Entries of the tokens whose text has begun to show; at the end also those without.

        A stop string's own are hidden with it.
        """
        end = self._offset - len(self._held)
        everything = last and not self.stopped
        taken = [pair for pair in self._logprobs if everything or pair[0] < end]
        self._logprobs = self._logprobs[len(taken) :]
        return tuple(entry for _, entry in taken)
