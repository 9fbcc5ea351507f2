"""Reads sampled tokens while a thought is open and says when it ends, to the token.

The reader counts a token into the thought only once it is certain that it belongs there: not in
the middle of a character, not part of what may become a multi-token marker. The token after the
budget is still looked at, because if that is the end marker the thought ended by itself.
"""

from __future__ import annotations

from enum import Enum, auto
from itertools import accumulate

from ponder.engine.protocol import Vocabulary
from ponder.thought.format import CompiledFormat, Marker
from ponder.thought.text import TextDecoder, clean_cut, overlap


class Verdict(Enum):
    """What the last token meant."""

    MORE = auto()
    ENDED = auto()  # the end marker (or a tool call) was sampled
    SKIPPED = auto()  # the model answered without opening a thought
    OVER = auto()  # the thought wanted more than its budget


class ThoughtReader:
    """State of one open thought.

    `thinking` are its confirmed token ids; `overhead` counts sampled tokens before it (blanks and
    the start marker of a thought the model opens). `room`, where given, bounds both together:
    what the overhead takes of it is the thought's loss. `take_text` hands out text that no cut
    can take back. After ENDED, `answer_text` is text of the marker's tokens that belongs to the
    answer.
    """

    def __init__(
        self,
        form: CompiledFormat,
        vocabulary: Vocabulary,
        *,
        budget: int,
        grace: int = 0,
        room: int | None = None,
    ) -> None:
        self._form = form
        self._decoder = TextDecoder(vocabulary)
        self._token_bytes = vocabulary.token_bytes
        self._room = room
        self._limit = budget if room is None else max(0, min(budget, room))
        self._budget = budget
        self._grace = grace
        markers = (form.end,) if form.tool_call is None else (form.end, form.tool_call)
        self._by_id = {m.token_id: m for m in markers if m.token_id is not None}
        self._by_text = tuple(m for m in markers if m.token_id is None)
        # A character has at most 4 bytes, a marker's tokens at least one each.
        self._lookahead = 3 + max((len(m.text.encode()) for m in self._by_text), default=0)
        self._opening = form.opened_by == "model"
        self._opening_text = ""
        self._partial: tuple[list[int], str] = ([], "")  # tokens of an unfinished character
        self._held: list[tuple[list[int], str]] = []  # whole characters that may become a marker
        self._tail = ""  # text of the last counted tokens, inside the grace
        self._ready: list[str] = []
        self._shown = False
        self.thinking: list[int] = []
        self.overhead = 0
        self.answer_text = ""

    @property
    def opened(self) -> bool:
        return not self._opening

    @property
    def starved(self) -> bool:
        """The overhead took a part of the budget."""
        return self._limit < self._budget

    def feed(self, token_id: int) -> Verdict:
        if self._opening:
            return self._open(token_id)
        if (marker := self._by_id.get(token_id)) is not None:
            return self._end_by_id(marker)
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
        return Verdict.MORE if self._count(ids, text) else Verdict.OVER

    def take_text(self) -> str:
        """Text of the thought since the last call."""
        text = "".join(self._ready)
        self._ready.clear()
        if not self._shown:
            text = text.lstrip("\n")  # the line break after the start marker is the format's
            self._shown = bool(text)
        return text

    def settle(self) -> bool:
        """The sampling stopped without a marker: what was held belongs to the thought.

        An unfinished character is dropped, and what exceeds the budget. True when that leaves
        room for one more token, so that the EOS itself lies within the budget.
        """
        verdict = self._confirm(len(self._held_text()))
        return verdict is Verdict.MORE and len(self.thinking) < self._limit

    # -- opening ---------------------------------------------------------------------------

    def _open(self, token_id: int) -> Verdict:
        """The first non-blank token decides: the start marker, or no thought at all."""
        self.overhead += 1
        start = self._form.start
        if token_id == start.token_id and not self._decoder.pending:
            return self._opened("")
        self._opening_text += self._decoder.feed(token_id)
        seen = self._opening_text.lstrip()
        if start.token_id is None and seen.startswith(start.text):
            return self._opened(seen[len(start.text) :])
        undecided = not seen or (start.token_id is None and start.text.startswith(seen))
        crowded = self._room is not None and self.overhead >= self._room
        return Verdict.MORE if undecided and not crowded else Verdict.SKIPPED

    def _opened(self, rest: str) -> Verdict:
        """The thought starts, with `rest` of the marker's last token as its first text."""
        self._opening = False
        if self._room is not None:
            self._limit = max(0, min(self._budget, self._room - self.overhead))
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
                return Verdict.OVER
            size -= len(text)
        return self._wait()

    def _count(self, ids: list[int], text: str) -> bool:
        """Count tokens into the thought, unless it has already reached its end."""
        if self._tail and clean_cut(self._tail, text):
            return False
        if len(self.thinking) + len(ids) > self._limit:
            return False
        self.thinking.extend(ids)
        self._ready.append(text)
        self._tail = text if len(self.thinking) > self._limit - self._grace else ""
        return True

    def _wait(self) -> Verdict:
        """Undecided tokens may reach past the budget, but only as far as a marker does."""
        held = len(self._partial[0]) + sum(len(ids) for ids, _ in self._held)
        over = len(self.thinking) + held - self._limit
        return Verdict.OVER if over > self._lookahead else Verdict.MORE

    # -- ending ----------------------------------------------------------------------------

    def _end_by_id(self, marker: Marker) -> Verdict:
        """A single-token marker was sampled; what was held before it belongs to the thought."""
        ids, text = self._partial
        if ids:
            self._held.append((ids, text + self._decoder.flush()))
        return self._end(marker, "")

    def _end_by_text(self) -> Verdict:
        """Look for a multi-token marker in the held text, count what can be none."""
        held = self._held_text()
        for marker in self._by_text:
            before, found, rest = held.partition(marker.text)
            if found:
                if self._confirm(len(before)) is Verdict.OVER or not self._part(marker):
                    return Verdict.OVER
                return self._end(marker, rest)
        marking = max((overlap(held, marker.text) for marker in self._by_text), default=0)
        return self._confirm(len(held) - marking)

    def _part(self, marker: Marker) -> bool:
        """Part the thought's end from the marker that begins in the same piece.

        Tokens wholly before the marker are the thought's: of a broken character, or of one that
        ends in the token where the marker begins. That token is the marker's; its text is shown.
        """
        text = self._held_text().partition(marker.text)[0]
        held = [token_id for ids, _ in self._held for token_id in ids]
        self._held.clear()
        sizes = [len(self._token_bytes(token_id)) for token_id in held]
        at = b"".join(map(self._token_bytes, held)).find(marker.text.encode())
        own = sum(end <= at for end in accumulate(sizes))
        if own:
            return self._count(held[:own], text)
        self._ready.append(text)
        return True

    def _end(self, marker: Marker, rest: str) -> Verdict:
        if self._confirm(len(self._held_text())) is Verdict.OVER:
            return Verdict.OVER
        self.answer_text = rest if marker == self._form.end else marker.text + rest
        return Verdict.ENDED
