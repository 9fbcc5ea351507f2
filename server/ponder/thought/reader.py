"""Reads sampled tokens while a thought is open and says when it ends, to the token.

The reader counts a token into the thought only once it is certain that it belongs there: not in
the middle of a character, not part of what may become a multi-token marker. It asks the exits
before a token is counted, not after: if the token is the end marker, the thought ended by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum, auto
from itertools import accumulate
from operator import itemgetter

from ponder.engine.protocol import Vocabulary
from ponder.thought.exits.causes import Cause
from ponder.thought.exits.exit import Found, Progress
from ponder.thought.exits.watch import Watch
from ponder.thought.format import CompiledFormat, Marker
from ponder.thought.outcome import ThoughtDelta
from ponder.thought.text import (
    as_bytes,
    before_marks,
    clean_cut,
    marked_bytes,
    overlap,
    unmarked,
)

_BLOCK = 32
_FEW = 4
"""Tokens that `read` tries to count at once, and how many are not worth the attempt."""


class Verdict(Enum):
    """What the last token meant."""

    MORE = auto()
    ENDED = auto()  # the end marker (or a tool call) was sampled
    SKIPPED = auto()  # the model answered without opening a thought
    CLOSED = auto()  # an exit closes the thought


class ThoughtReader:
    """State of one thought, which may have several blocks.

    `at` is what the exits see of the thought, and `cause` is why one of them closed it. `room`,
    where given, bounds the opening and the thought together: an opening that fills it opens no
    thought. `take_text` hands out text that no cut can take back. After ENDED, `answer_text` is the
    text of the marker's tokens that belongs to the answer.

    The current block follows `opening` tokens of its request, `within` of which are an earlier
    part of it; `begun` tokens of thought precede the block.
    """

    def __init__(
        self,
        form: CompiledFormat,
        vocabulary: Vocabulary,
        watch: Watch,
        *,
        room: int | None = None,
    ) -> None:
        self._form = form
        self._vocabulary = vocabulary
        self._decoder = form.marks.decoder(vocabulary)
        self._token_bytes = marked_bytes(vocabulary, form.marks)
        self.watch = watch
        self._room = room
        markers = form.ends if form.again is None else (*form.ends, form.again)
        self._by_id = {m.token_id: m for m in markers if m.token_id is not None}
        self._by_text = tuple(m for m in markers if m.token_id is None)
        # A character has at most 4 bytes, a marker's tokens at least one each.
        longest = max((len(as_bytes(m.seen)) for m in self._by_text), default=0)
        self._lookahead = 3 + max(longest, form.marks.reach)
        self.opened = form.opened_by == "template"
        self._opening_text = ""
        self._partial: tuple[list[int], str] = ([], "")  # tokens of an unfinished character
        self._held: list[tuple[list[int], str]] = []  # whole characters that may become a marker
        self._tail = ""  # text of the last counted tokens
        self._ready: list[str] = []
        self._shown = False
        self.at = Progress()
        self.cause: Cause | None = None
        self.answer_text = ""
        self.opening = self.begun = self.within = 0

    @property
    def thinking(self) -> list[int]:
        """The confirmed token ids of the thought."""
        return self.at.thinking

    @property
    def overhead(self) -> int:
        """Tokens before the thought: blanks, and the start marker where the model opens it.

        Before a later block: all tokens so far that are not the thought's.
        """
        return self.at.overhead

    @property
    def settled(self) -> bool:
        """Whether no token waits for the rest of a character or of a possible marker."""
        return not self._partial[0] and not self._held

    def reopen(self, rest: str, overhead: int, opening: int) -> Verdict:
        """Open another block of thought, behind `opening` tokens of its request.

        `rest` is the text that follows the marker in its last token.
        """
        self.at.overhead, self.opening, self.within = overhead, opening, 0
        self.begun = len(self.at.thinking)
        self._decoder = self._form.marks.decoder(self._vocabulary)
        self._partial = ([], "")
        self._held.clear()
        self._tail = self.answer_text = ""
        self._shown = False
        self.cause = None
        self.watch.renew()
        return self._opened(rest)

    def feed(self, token_id: int) -> Verdict:
        if not self.opened:
            return self._open(token_id)
        if (marker := self._by_id.get(token_id)) is not None:
            return self._end_by_id(marker, token_id)
        ids, text = self._partial
        ids.append(token_id)
        text += self._decoder.feed(token_id)
        if self._decoder.pending:
            self._partial = (ids, text)
            return self._wait()
        self._partial = ([], "")
        if self._by_text:
            self._held.append((ids, text))
            return self._end_by_text()
        return Verdict.MORE if self._count(ids, text) else Verdict.CLOSED

    def read(self, token_ids: Sequence[int]) -> tuple[int, Verdict]:
        """Feed tokens until the thought is over; returns how many, and the verdict on the last."""
        for begin in range(0, len(token_ids), _BLOCK):
            block = token_ids[begin : begin + _BLOCK]
            plain = self._count_plain(block) if len(block) > _FEW else 0
            for fed, token_id in enumerate(block[plain:], begin + plain + 1):
                if (verdict := self.feed(token_id)) is not Verdict.MORE:
                    return fed, verdict
        return len(token_ids), Verdict.MORE

    def _count_plain(self, token_ids: Sequence[int]) -> int:
        """Count the first of these tokens into the thought at once; returns how many.

        They are those before which no exit looks. It is none where a marker or half a character may
        be among them: `feed` decides such tokens one by one.
        """
        if not self.opened or self._by_text or not self.settled:
            return 0
        quiet = self.watch.quiet - len(self.at.thinking)
        ids = token_ids if quiet >= len(token_ids) else token_ids[: max(0, int(quiet))]
        if not ids or not self._by_id.keys().isdisjoint(ids):
            return 0
        text, tail = self._decoder.plain(ids), self._decoder.plain(ids[-1:])
        if text is None or tail is None:
            return 0
        self.at.thinking.extend(ids)
        self._tail = tail
        self._ready.append(text)
        return len(ids)

    def events(self) -> Sequence[ThoughtDelta]:
        """Text of the thought since the last call, as events."""
        text = self.take_text()
        return (ThoughtDelta(text),) if text else ()

    def take_text(self) -> str:
        """Text of the thought since the last call."""
        text = "".join(self._ready)
        self._ready.clear()
        if self._form.marks:
            text = unmarked(text)
        if not self._shown:
            text = text.lstrip("\n")  # the line break after the start marker is the format's
            self._shown = bool(text)
        return text

    def settle(self) -> bool:
        """Count held tokens into the thought: the sampling stopped without a marker.

        Drops an unfinished character, an unfinished marker of special tokens, and tokens before
        which an exit closes the thought. Returns True if the exits leave room for one more token,
        so that the EOS itself lies within the budget.
        """
        verdict = self._confirm(before_marks(self._held_text()))
        return verdict is Verdict.MORE and self._allows(1)

    def wake(self) -> bool:
        """Ask the exits that wait for a time or for a wake; True if one closes the thought."""
        self.at.coming, self.at.clean = 0, False
        self.cause = self.watch.ask(self.at, woken=True)
        return self.cause is not None

    def hear(self, number: int, found: Found) -> bool:
        """Tell an exit what its probe found; True if it closes the thought."""
        self.at.coming, self.at.clean = 0, False
        self.cause = self.watch.hear(number, found, self.at)
        return self.cause is not None

    # -- opening ---------------------------------------------------------------------------

    def _open(self, token_id: int) -> Verdict:
        """The first non-blank token decides: the start marker, or no thought at all."""
        self.at.overhead += 1
        self.opening += 1
        start = self._form.start
        if token_id == start.token_id and not self._decoder.pending:
            return self._opened("")
        self._opening_text += self._decoder.feed(token_id)
        seen = self._opening_text.lstrip()
        if start.token_id is None and seen.startswith(start.seen):
            return self._opened(seen[len(start.seen) :])
        undecided = not seen or (start.token_id is None and start.seen.startswith(seen))
        crowded = self._room is not None and self.overhead >= self._room
        return Verdict.MORE if undecided and not crowded else Verdict.SKIPPED

    def _opened(self, rest: str) -> Verdict:
        """The thought starts, with `rest` of the marker's last token as its first text."""
        self.opened = True
        self._held.append(([], rest))
        return self._end_by_text()

    # -- thinking --------------------------------------------------------------------------

    def _held_text(self) -> str:
        return "".join(text for _, text in self._held)

    def _confirm(self, size: int) -> Verdict:
        """Count the tokens that lie within the first `size` held characters."""
        while self._held and len(self._held[0][1]) <= size:
            ids, text = self._held.pop(0)
            if not self._count(ids, text):
                return Verdict.CLOSED
            size -= len(text)
        return self._wait()

    def _count(self, ids: list[int], text: str) -> bool:
        """Count tokens into the thought, unless an exit closes it before them."""
        at = self.at
        if len(at.thinking) + len(ids) > self.watch.quiet and not self._allows(len(ids), text):
            return False
        at.thinking.extend(ids)
        self._tail = text
        self._ready.append(text)
        return True

    def _allows(self, coming: int, text: str | None = None) -> bool:
        """Ask the exits that look before `coming` tokens, with their text where it is known."""
        at, watch = self.at, self.watch
        size = len(at.thinking)
        at.coming = coming
        at.clean = text is not None and size > watch.clean and clean_cut(self._tail, text)
        if at.clean or size + coming > watch.tokens:
            self.cause = watch.ask(at)
        return self.cause is None

    def _wait(self) -> Verdict:
        """Let undecided tokens pass an exit's limit, but by no more than a marker's length."""
        beyond = len(self._partial[0]) - self._lookahead
        if self._held:
            beyond += sum(len(ids) for ids, _ in self._held)
        over = len(self.at.thinking) + beyond > self.watch.tokens
        return Verdict.CLOSED if over and not self._allows(beyond) else Verdict.MORE

    # -- ending ----------------------------------------------------------------------------

    def _end_by_id(self, marker: Marker, token_id: int) -> Verdict:
        """A single-token marker was sampled; what was held before it belongs to the thought."""
        ids, text = self._partial
        if ids:
            self._partial = ([], "")
            self._held.append((ids, text + self._decoder.flush()))
        if marker is not self._form.again:
            return self._end(marker, "")
        if self._confirm(len(self._held_text())) is Verdict.CLOSED:
            return Verdict.CLOSED
        self._held.append(([token_id], marker.seen))
        return self._go_on(marker)

    def _end_by_text(self) -> Verdict:
        """Look for a multi-token marker in the held text; count text that cannot be part of one."""
        held = self._held_text()
        found = [(at, m) for m in self._by_text if (at := held.find(m.seen)) >= 0]
        if found:
            at, marker = min(found, key=itemgetter(0))
            if self._confirm(at) is Verdict.CLOSED:
                return Verdict.CLOSED
            if marker is self._form.again:
                return self._go_on(marker)
            if self._part(marker) is None:
                return Verdict.CLOSED
            return self._end(marker, held[at + len(marker.seen) :])
        marking = max((overlap(held, marker.seen) for marker in self._by_text), default=0)
        return self._confirm(len(held) - marking)

    def _go_on(self, marker: Marker) -> Verdict:
        """Another part of the thought begins behind the marker, which is neither shown nor counted.

        A thought that may have no more tokens closes in front of the marker.
        """
        rest = self._held_text().partition(marker.seen)[2]
        marking = self._part(marker)
        if marking is None or not self._allows(1):
            return Verdict.CLOSED
        before = len(self.at.thinking) - self.begun
        self.opening += before + marking
        self.within += before
        self.begun = len(self.at.thinking)
        self.at.overhead += marking
        return self._opened(rest)

    def _part(self, marker: Marker) -> int | None:
        """Separate the thought's end from a marker that begins in the same piece.

        Tokens wholly before the marker are the thought's: those of a broken character, or of one
        that ends in the token where the marker begins. That token counts as the marker's, but its
        text is shown. Returns the number of the marker's tokens; None if an exit closes the thought
        before them.
        """
        text = self._held_text().partition(marker.seen)[0]
        held = [token_id for ids, _ in self._held for token_id in ids]
        self._held.clear()
        own = self._own(held, marker)
        if not own:
            self._ready.append(text)
        elif not self._count(held[:own], text):
            return None
        return len(held) - own

    def _own(self, held: Sequence[int], marker: Marker) -> int:
        """How many of the held tokens lie wholly before the marker."""
        if not unmarked(marker.seen[:1]):
            return next(n for n, token_id in enumerate(held) if token_id in self._form.marks)
        sizes = [len(self._token_bytes(token_id)) for token_id in held]
        at = b"".join(map(self._token_bytes, held)).find(as_bytes(marker.seen))
        return sum(end <= at for end in accumulate(sizes))

    def _end(self, marker: Marker, rest: str) -> Verdict:
        if self._confirm(len(self._held_text())) is Verdict.CLOSED:
            return Verdict.CLOSED
        self.answer_text = rest if marker == self._form.end else marker.text + rest
        return Verdict.ENDED
