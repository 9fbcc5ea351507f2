"""Writes the answer: hides the format's markers and stops at the user's stop strings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ponder.engine.protocol import CallPart, TokenLogprob, Vocabulary
from ponder.thought.format import AnswerMarkup
from ponder.thought.text import overlap, unmarked

_NO_MARKUP = AnswerMarkup()


@dataclass(frozen=True, slots=True)
class AnswerDelta:
    """Text that may be shown now, with the log probabilities of the tokens that made it."""

    text: str
    logprobs: tuple[TokenLogprob, ...] = ()


class AnswerWriter:
    """Turns answer tokens into text that can be shown.

    Leading blank is the format's separator: it is dropped, so that the retry of an empty answer is
    invisible. The markers and the wrapper in `markup` are dropped too. Text that may become one of
    them or a stop string is held until it is decided; a stop string is never shown. A `verbatim`
    answer is shown unchanged, including its leading blank.

    Where a marker opens another block of thought, `opened` is the text behind the marker, which
    belongs to the thought. The reader of the thought then sets `opened` to None. `closes` counts
    the end markers.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        stop: Sequence[str] = (),
        *,
        verbatim: bool = False,
        markup: AnswerMarkup | None = None,
    ) -> None:
        self._markup = _NO_MARKUP if markup is None or verbatim else markup
        self._decoder = self._markup.marks.decoder(vocabulary)
        self._stop = tuple(stop)
        self._verbatim = verbatim
        self._markers = (*self._markup.opens, *self._markup.hidden)
        self._special = [text for text in self._markers if not unmarked(text[:1])]
        self._longer = [text for text in (*self._stop, *self._markers) if len(text) > 1]
        sought = (*self._stop, *self._markers, self._markup.wrapper)
        self._firsts = frozenset(text[0] for text in sought if text)
        self._heed_ascii = any(map(str.isascii, self._firsts))
        self._suspect = False  # the held text may hold a marker or a stop string
        self._ready = ""  # decided and not taken
        self._held = ""  # the last characters fed, undecided
        self._offset = 0  # characters fed so far
        self._given = 0  # characters fed up to the end of the last text that was not sampled
        self._silent = True  # the decided text has no sampled character but blank
        self._logprobs: list[tuple[int, int, TokenLogprob]] = []  # (start, end of its text, entry)
        self._gap = ""  # what separates two messages of the answer, before the second one's text
        self.shown = self.closes = 0
        self.opened: str | None = None
        self.stopped = False
        self.stop_string: str | None = None  # the stop string that ended the answer

    def feed(self, token_id: int, logprob: TokenLogprob | None = None) -> None:
        """Take one token; it is ignored once `stopped`."""
        if self.stopped:
            return
        text = self._decoder.feed(token_id)
        if logprob is not None:
            self._logprobs.append((self._offset, self._offset + len(text), logprob))
        self.feed_text(text, sampled=True)

    def feed_plain(self, token_ids: Sequence[int]) -> bool:
        """Take tokens at once; False, with none taken, where a marker or a stop may be in them."""
        if self.stopped or self._suspect:
            return False
        text = self._decoder.plain(token_ids)
        if text is None or not self._firsts.isdisjoint(text):
            return False
        self.feed_text(text, sampled=True)
        return True

    def feed_text(self, text: str, *, sampled: bool = False) -> None:
        """Take text; without any `sampled` text (an answer prefix is none) the answer is blank."""
        if self.stopped or not text:
            return
        self._offset += len(text)
        if not sampled:
            self._given = self._offset
        self._held += text
        if not (self.shown or self._ready):
            self._strip()
        if not self._suspect and (self._heed_ascii or not text.isascii()):
            self._suspect = not self._firsts.isdisjoint(text)
        if not self._suspect:
            return  # most tokens: no marker and no stop string can begin in them
        while (found := self._marker()) is not None:
            at, marker = found
            if self._stop_at(self._spelt(self._held[: at + len(marker)])):
                return
            self._decide(at)
            if marker in self._markup.opens:
                self.opened = self._held[len(marker) :]
                self._hide(len(self._held))
                return
            if marker == self._markup.hidden[0]:
                self.closes += 1
                self._gap = self._markup.between if self.shown or self._ready else ""
            self._hide(len(marker))
            self._strip()
        self._stop_at(self._held)

    def events(self, *, last: bool = False, cut: bool = False) -> Sequence[AnswerDelta | CallPart]:
        """The events that may be shown now; with `last`, all. `cut`: the answer was truncated."""
        delta = self.take(last=last)
        return () if delta is None else (delta,)

    def take(self, *, last: bool = False) -> AnswerDelta | None:
        """Take the text that may be shown now; with `last`, all that is left."""
        if self.stopped:
            self._decide(len(self._held))
        elif last:
            self.feed_text(self._decoder.rest(), sampled=True)
            self._hide_half()
            self._decide(len(self._held))
        elif self._held:
            self._decide(len(self._held) - (self._undecided() if self._suspect else 0))
        text, self._ready = self._ready, ""
        self.shown += len(text)
        logprobs = self._take_logprobs(last) if self._logprobs and (text or last) else ()
        return AnswerDelta(text, logprobs) if text or logprobs else None

    @property
    def calls(self) -> int:
        """The number of complete calls in the answer."""
        return 0

    @property
    def holds(self) -> bool:
        """Some text is undecided."""
        return bool(self._held)

    @property
    def blank(self) -> bool:
        """Whether only blank and hidden text was sampled so far."""
        held = self._sampled(len(self._held) - self._half()) + self._decoder.rest()
        return self._silent and not held.strip()

    # -- deciding --------------------------------------------------------------------------

    def _marker(self) -> tuple[int, str] | None:
        """The first marker in the held text, and where it is."""
        first: tuple[int, str] | None = None
        for marker in self._markers:
            at = self._held.find(marker)
            if at >= 0 and (first is None or at < first[0]):
                first = (at, marker)
        return first

    def _stop_at(self, text: str) -> bool:
        """Stop at the first stop string in `text`, the beginning of the held text."""
        found = [(at, stop) for stop in self._stop if (at := text.find(stop)) >= 0]
        if found:
            at, self.stop_string = min(found)
            self._offset += at - len(self._held)
            self._held = text[:at]
            self.stopped = True
        return self.stopped

    def _undecided(self) -> int:
        """How many held characters may still become a marker, the wrapper or a stop string."""
        if self._beginning and self._markup.wrapper.startswith(self._held):
            return len(self._held)
        return max((overlap(self._held, text) for text in self._longer), default=0)

    def _decide(self, size: int) -> None:
        """Release the first `size` held characters to be shown."""
        if self._silent and self._sampled(size).strip():
            self._silent = False
        held = self._held[:size]
        text = self._spelt(held) if self._markup.spelt else unmarked(held)
        if text:
            self._ready, self._gap = f"{self._ready}{self._gap}{text}", ""
        self._held = self._held[size:]
        self._suspect = self._suspect and bool(self._held)

    def _sampled(self, size: int) -> str:
        """The sampled part of the first `size` held characters."""
        given = self._given - (self._offset - len(self._held))
        held = self._held[max(0, given) : size]
        return self._spelt(held) if self._markup.spelt else unmarked(held)

    # -- hiding ----------------------------------------------------------------------------

    @property
    def _beginning(self) -> bool:
        return not (self.shown or self._ready or self._verbatim)

    def _strip(self) -> None:
        """Drop leading blank and the wrapper's opening."""
        if not self._beginning:
            return
        rest, wrapper = self._held.lstrip(), self._markup.wrapper
        while wrapper and rest.startswith(wrapper):
            rest = rest[len(wrapper) :].lstrip()
        if len(rest) < len(self._held):
            self._hide(len(self._held) - len(rest))

    def _half(self) -> int:
        """The length of an unfinished marker of special tokens at the end of the held text."""
        return max((overlap(self._held, marker) for marker in self._special), default=0)

    def _hide_half(self) -> None:
        if self._decoder.half:  # its tokens have no text yet
            self._logprobs = [one for one in self._logprobs if one[0] < self._offset]
        size = len(self._held) - self._half()
        self._decide(size)
        self._hide(len(self._held))

    def _hide(self, size: int) -> None:
        """Drop the first `size` held characters, with the tokens that lie wholly in them."""
        start = self._offset - len(self._held)
        end = start + size
        self._held = self._held[size:]
        self._suspect = self._suspect and bool(self._held)
        self._logprobs = [
            entry for entry in self._logprobs if not (start <= entry[0] < end and entry[1] <= end)
        ]

    def _spelt(self, text: str) -> str:
        """The text with each marked token's character replaced by the token's text."""
        return "".join(self._markup.texts.get(char, char) for char in text)

    def _take_logprobs(self, last: bool) -> tuple[TokenLogprob, ...]:
        """Take the entries of tokens whose text has begun to show; at the end, all others too.

        Entries of a stop string's tokens are hidden with it.
        """
        end = self._offset - len(self._held)
        everything = last and not self.stopped
        taken = [entry for entry in self._logprobs if everything or entry[0] < end]
        self._logprobs = self._logprobs[len(taken) :]
        return tuple(entry for _, _, entry in taken)
