"""Reads sampled tokens while a thought is open and says when it ends, to the token.

The reader counts a token into the thought only once it is certain that it belongs there: not in
the middle of a character, not part of what may become a multi-token marker. The token after the
budget is still looked at, because if that is the end marker the thought ended by itself.
"""

from __future__ import annotations

from enum import Enum, auto

from ponder.engine.base import Vocabulary
from ponder.thought.format import CompiledFormat, Marker
from ponder.thought.text import TextDecoder, overlap

SENTENCE_END = (".", "!", "?", "。", "！", "？", "…")


class Verdict(Enum):
    """What the last token meant."""

    MORE = auto()
    ENDED = auto()  # the end marker (or a tool call) was sampled
    SKIPPED = auto()  # the model answered without opening a thought
    OVER = auto()  # the thought wanted more than its budget


class ThoughtReader:
    """State of one open thought.

    `thinking` are its confirmed token ids; `overhead` counts sampled tokens around it (blanks and
    the start marker of a thought the model opens). `take_text` hands out text that no cut can
    take back. After ENDED, `answer_text` is text of the marker's tokens that belongs to the answer.
    """

    def __init__(
        self, form: CompiledFormat, vocabulary: Vocabulary, *, budget: int, grace: int = 0
    ) -> None:
        self._form = form
        self._decoder = TextDecoder(vocabulary)
        self._budget = budget
        self._grace = grace
        self._opening = form.opened_by == "model"
        self._opening_text = ""
        self._held: list[int] = []
        self._held_text = ""
        self._ready: list[str] = []
        self._shown = False
        self._boundary = 0  # tokens of the thought up to its last clean end inside the grace
        self._last_text = ""
        self.thinking: list[int] = []
        self.overhead = 0
        self.answer_text = ""

    @property
    def opened(self) -> bool:
        return not self._opening

    def feed(self, token_id: int) -> Verdict:
        if self._opening:
            return self._open(token_id)
        ending = self._ending_id(token_id)
        if ending is not None:
            return self._end(ending)
        self._held.append(token_id)
        self._held_text += self._decoder.feed(token_id)
        if self._decoder.pending:
            return Verdict.MORE
        marked = self._ending_text()
        if marked is not None:
            return marked
        if self._unsettled():
            return Verdict.MORE
        return self._confirm()

    def take_text(self) -> str:
        """Text of the thought since the last call."""
        text = "".join(self._ready)
        self._ready.clear()
        if not self._shown:
            text = text.lstrip("\n")  # the line break after the start marker is the format's
            self._shown = bool(text)
        return text

    def settle(self) -> None:
        """The thought stops here without a marker (EOS): what was held belongs to it.

        An unfinished character is dropped; what exceeds the budget as well.
        """
        if self._held and not self._decoder.pending:
            room = self._budget - len(self.thinking)
            if len(self._held) <= room:
                self._take_held()
        self._held.clear()

    # -- opening ---------------------------------------------------------------------------

    def _open(self, token_id: int) -> Verdict:
        """The first non-blank token decides: the start marker, or no thought at all."""
        self.overhead += 1
        start = self._form.start
        if token_id == start.token_id:
            self._opening = False
            return Verdict.MORE
        self._opening_text += self._decoder.feed(token_id)
        seen = self._opening_text.lstrip()
        if start.token_id is None and seen.startswith(start.text):
            self._opening = False
            self._held_text = seen[len(start.text) :]
            return Verdict.MORE
        undecided = not seen or (start.token_id is None and start.text.startswith(seen))
        return Verdict.MORE if undecided else Verdict.SKIPPED

    # -- thinking --------------------------------------------------------------------------

    def _confirm(self) -> Verdict:
        """Count what is held, unless the thought has already reached its end."""
        if self._boundary and self._clean_cut():
            return self._cut(self._boundary)
        if len(self.thinking) + len(self._held) > self._budget:
            return self._cut(len(self.thinking))
        self._take_held()
        if len(self.thinking) > self._budget - self._grace and self._ends_cleanly():
            self._boundary = len(self.thinking)
        return Verdict.MORE

    def _take_held(self) -> None:
        self.thinking.extend(self._held)
        self._last_text = self._held_text or self._last_text
        self._ready.append(self._held_text)
        self._held.clear()
        self._held_text = ""

    def _ends_cleanly(self) -> bool:
        return self._last_text.endswith("\n") or self._last_text.rstrip().endswith(SENTENCE_END)

    def _clean_cut(self) -> bool:
        """A full stop ends a sentence only if a blank follows it: 3.14 is no place to cut."""
        if self._last_text[-1:].isspace() or self._held_text[:1].isspace():
            return True
        self._boundary = 0
        return False

    def _cut(self, size: int) -> Verdict:
        del self.thinking[size:]
        self._held.clear()
        return Verdict.OVER

    # -- ending ----------------------------------------------------------------------------

    def _endings(self) -> tuple[Marker, ...]:
        form = self._form
        return (form.end,) if form.tool_call is None else (form.end, form.tool_call)

    def _ending_id(self, token_id: int) -> Marker | None:
        return next((m for m in self._endings() if m.token_id == token_id), None)

    def _end(self, marker: Marker) -> Verdict:
        """A single-token marker was sampled; what was held before it belongs to the thought."""
        if len(self.thinking) + len(self._held) > self._budget:
            return self._cut(len(self.thinking))
        self._take_held()
        if marker is not self._form.end:
            self.answer_text = marker.text
        return Verdict.ENDED

    def _ending_text(self) -> Verdict | None:
        """A multi-token marker is complete in the held text."""
        for marker in self._endings():
            if marker.token_id is None and marker.text in self._held_text:
                before, _, rest = self._held_text.partition(marker.text)
                self._ready.append(before)
                self.answer_text = rest if marker is self._form.end else marker.text + rest
                self._held.clear()
                return Verdict.ENDED
        return None

    def _unsettled(self) -> bool:
        """The held text may become a multi-token marker."""
        return any(
            marker.token_id is None and overlap(self._held_text, marker.text)
            for marker in self._endings()
        )
