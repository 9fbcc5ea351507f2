"""How a model writes a thought, and how a thought is closed for it.

A checkpoint's contract gives the format; without one, the table of `ponder.thought.families` does.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from ponder.engine.protocol import Vocabulary
from ponder.thought.errors import InvalidCloseText
from ponder.thought.harmony import Headers
from ponder.thought.text import Marks, as_bytes, marked_bytes

OpenedBy = Literal["template", "model"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ThoughtFormat:
    """The textual form of a thought: what rendering a chat template cannot tell.

    `start` and `end` are the markers; a sampled `tool_call` marker ends a thought too, and `again`
    begins another part of it: none of them is shown. `close_text` holds `end` exactly once and is
    appended where a thought is closed for the model; `source` says where it comes from.
    `answer_prefix` follows the close text and is shown. `skip_text` ends a prompt without a thought
    where the template has no switch; None stands for start marker and close text. `wrapper` is the
    text that some models write before and after the answer; neither it nor a line break at it is
    shown.

    With `headers`, each message begins with one as `ponder.thought.harmony` reads them. Where calls
    are possible, `call_close` replaces the close text and leaves the next header to the model.

    `opens` says that the thought is always opened: by Ponder, where the chat template does not.
    `think` and `no_think` are template arguments that switch thinking on and off, needed where
    trying the usual ones does not find them. `efforts` are the words that the model was trained on,
    needed where its template takes any. `tells` is the template argument that tells the model a
    number of tokens, needed where it is not the usual one. `hint` has a place for `{budget}`, which
    is one of `trained_budgets`.
    """

    name: str
    start: str = "<think>"
    end: str = "</think>"
    again: str | None = None
    close_text: str = "\n</think>\n\n"
    source: str = "neutral"
    answer_prefix: str = ""
    skip_text: str | None = None
    wrapper: tuple[str, str] | None = None
    tool_call: str | None = None
    headers: bool = False
    call_close: str | None = None
    opens: bool = False
    think: Mapping[str, Any] = field(default_factory=dict)
    no_think: Mapping[str, Any] | None = None
    efforts: tuple[str, ...] = ()
    tells: str | None = None
    hint: str | None = None
    trained_budgets: tuple[int, ...] = ()


_NONE = Marks()


@dataclass(frozen=True, slots=True)
class Marker:
    """A marker's text, and its token id where it is a single token.

    Single tokens are matched by id, so that a model which spells the marker out in ordinary
    characters does not end its thought. Other markers are matched in the text, as `seen`: special
    tokens have no text, so a character stands for each of them.
    """

    text: str
    token_id: int | None
    seen: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "seen", self.seen or self.text)

    @classmethod
    def of(cls, text: str, vocabulary: Vocabulary, marks: Marks = _NONE) -> Marker:
        ids = vocabulary.encode(text)
        return cls(text, ids[0] if len(ids) == 1 else None, marks.seen(text, vocabulary))


@dataclass(frozen=True, slots=True)
class Close:
    """What is appended to close a thought.

    `ids` is the close text and the answer prefix, each tokenised by itself. `shown` is the part
    that the user sees: everything after the end marker except the wrapper's opening. Both end with
    the answer prefix; `prefix` is its number of tokens and its text.
    """

    ids: tuple[int, ...]
    shown: str
    prefix: tuple[int, str] = (0, "")

    @property
    def bare(self) -> Close:
        """The close without the answer prefix, which a grammar would not allow."""
        size, text = self.prefix
        return Close(self.ids[: len(self.ids) - size], self.shown.removesuffix(text))

    @classmethod
    def of(
        cls, text: str, end: Marker, answer_prefix: str, vocabulary: Vocabulary, wrapper: str = ""
    ) -> Close:
        """Raises `InvalidCloseText` unless text and prefix hold the end marker exactly once."""
        ids = vocabulary.encode(text)
        as_token = end.token_id is None or ids.count(end.token_id) == 1
        if (text + answer_prefix).count(end.text) != 1 or end.text not in text or not as_token:
            raise InvalidCloseText(
                f"close_text must contain the end marker {end.text!r} exactly once", "close_text"
            )
        shown = text.partition(end.text)[2]
        if wrapper and shown.lstrip().startswith(wrapper):
            shown = shown.replace(wrapper, "", 1)
        prefix = vocabulary.encode(answer_prefix)
        return cls((*ids, *prefix), shown + answer_prefix, (len(prefix), answer_prefix))


@dataclass(frozen=True, slots=True)
class Hint:
    """A budget that the model is told, and the text that tells it, tokenised by itself.

    The text of a trained budget follows an opened thought's marker, as the last part of the prompt:
    its tokens belong neither to the thought's text nor to its count. There are no such tokens where
    the chat template tells the budget.
    """

    budget: int
    ids: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class AnswerMarkup:
    """The markers to look for in an answer, as a decoder of `marks` spells them.

    One of `opens` opens another block of thought; `hidden`, the end marker first, are not shown,
    and neither is `wrapper` at the beginning. `texts` maps the character of a marked token to the
    token's text; with `spelt`, that text is shown. `between` separates the messages of an answer
    that has several.
    """

    marks: Marks = field(default_factory=Marks)
    opens: tuple[str, ...] = ()
    hidden: tuple[str, ...] = ()
    wrapper: str = ""
    texts: Mapping[str, str] = field(default_factory=dict)
    spelt: bool = False
    between: str = ""


@dataclass(frozen=True, slots=True)
class CompiledFormat:
    """A format in one vocabulary's token ids: what a thought works with.

    `skip` follows a prompt that opens no thought and is to have none; `lead` are the tokens that
    such an answer cannot do without. `call_close` replaces `close` where calls are possible.
    `hints` are in ascending order of budgets. Only a thought that the template opens can have a
    hint: otherwise the prompt ends before the thought begins. `marks` are the special tokens in
    multi-token markers. `masked` are the single-token markers that a request for the answer
    forbids.
    """

    start: Marker
    end: Marker
    again: Marker | None
    tool_call: Marker | None
    close: Close
    skip: Close
    lead: tuple[int, ...]
    call_close: Close | None
    opened_by: OpenedBy
    hints: tuple[Hint, ...]
    marks: Marks
    answer: AnswerMarkup

    @classmethod
    def of(
        cls,
        form: ThoughtFormat,
        opened_by: OpenedBy,
        vocabulary: Vocabulary,
    ) -> CompiledFormat:
        wrapper = form.wrapper or ("", "")
        texts = (form.start, form.end, form.again, form.tool_call, form.skip_text, *wrapper)
        marks: Marks = Headers(vocabulary) if form.headers else Marks()
        marks = marks or _special((text for text in texts if text), vocabulary)
        end = Marker.of(form.end, vocabulary, marks)
        hints = [
            Hint(budget, tuple(vocabulary.encode(form.hint.replace("{budget}", str(budget)))))
            for budget in sorted(form.trained_budgets)
            if form.hint is not None and opened_by == "template"
        ]
        close = Close.of(form.close_text, end, form.answer_prefix, vocabulary, wrapper[0])
        tool_call = Marker.of(form.tool_call, vocabulary, marks) if form.tool_call else None
        if tool_call and isinstance(marks, Headers):
            tool_call = Marker(tool_call.seen, None)  # as parsers of its calls look for it
        return cls(
            start=Marker.of(form.start, vocabulary, marks),
            end=end,
            again=Marker.of(form.again, vocabulary, marks) if form.again else None,
            tool_call=tool_call,
            close=close,
            skip=_skip(form, close, vocabulary),
            lead=tuple(vocabulary.encode(form.skip_text or "")),
            call_close=(
                Close(tuple(vocabulary.encode(form.call_close)), "") if form.call_close else None
            ),
            opened_by=opened_by,
            hints=tuple(hints),
            marks=marks,
            answer=_markup(form, vocabulary, marks),
        )

    def without_calls(self) -> CompiledFormat:
        """The format for a request without tools: the marker of a call ends no thought."""
        marks = self.marks.without_calls()
        answer = self.answer
        if marks is not self.marks:
            answer = replace(answer, marks=answer.marks.without_calls())
        return replace(self, tool_call=None, marks=marks, answer=answer)

    @property
    def masked(self) -> frozenset[int]:
        markers = (self.start, self.end, self.again)
        return frozenset(m.token_id for m in markers if m is not None and m.token_id is not None)

    @property
    def ends(self) -> tuple[Marker, ...]:
        return (self.end,) if self.tool_call is None else (self.end, self.tool_call)

    def holds_end(self, sampled: Sequence[int], vocabulary: Vocabulary) -> bool:
        """Whether the end marker is among these tokens."""
        if self.end.token_id is not None:
            return self.end.token_id in sampled
        return self.end.seen in "".join(map(self.marks.decoder(vocabulary).feed, sampled))

    def ending_tokens(self, sampled: Sequence[int], vocabulary: Vocabulary) -> int:
        """How many of the last tokens an end marker takes; the opening's last may begin it."""
        if sampled and sampled[-1] in [marker.token_id for marker in self.ends]:
            return 1
        if (ending := self.marks.ending(sampled)) is not None:
            return ending
        token_bytes = marked_bytes(vocabulary, self.marks)
        spelt = [as_bytes(marker.seen) for marker in self.ends]
        tail, taken = b"", 0
        while taken < len(sampled) and not any(marker in tail for marker in spelt):
            taken += 1
            tail = token_bytes(sampled[-taken]) + tail
        return taken

    @property
    def most_trained(self) -> int:
        """The largest budget that a hint can tell the model; 0 without hints."""
        return max((hint.budget for hint in self.hints), default=0)

    def hint(self, budget: int) -> Hint | None:
        """The largest trained budget within `budget` tokens; None below the smallest."""
        return max(
            (hint for hint in self.hints if hint.budget <= budget),
            key=lambda hint: hint.budget,
            default=None,
        )


def _special(texts: Iterable[str], vocabulary: Vocabulary) -> Marks:
    """Characters that stand for the special tokens in texts of several tokens."""
    marks = Marks()
    for text in texts:
        ids = vocabulary.encode(text)
        for token_id in ids if len(ids) > 1 else ():
            if not vocabulary.token_bytes(token_id):
                marks.add(token_id)
    return marks


def _skip(form: ThoughtFormat, close: Close, vocabulary: Vocabulary) -> Close:
    if form.skip_text is None:
        return replace(close, ids=(*vocabulary.encode(form.start), *close.ids))
    prefix, text = vocabulary.encode(form.answer_prefix), form.answer_prefix
    return Close((*vocabulary.encode(form.skip_text), *prefix), text, (len(prefix), text))


def _markup(form: ThoughtFormat, vocabulary: Vocabulary, special: Marks) -> AnswerMarkup:
    """The markup, with single-token markers marked too: an answer may spell out their text."""
    opens = [text for text in (form.start, form.again) if text]
    wrapper, unwrap = form.wrapper or ("", "")
    unwraps = (f"\n{unwrap}", unwrap) if unwrap else ()
    hidden = [text for text in (form.end, form.skip_text, *unwraps) if text]
    marks = copy(special)
    for ids in map(vocabulary.encode, (*opens, *hidden, wrapper)):
        if len(ids) == 1:
            marks.add(ids[0])
    texts = {
        char: vocabulary.token_bytes(id_).decode(errors="replace") for id_, char in marks.items()
    }
    return AnswerMarkup(
        marks,
        opens=tuple(marks.seen(text, vocabulary) for text in opens),
        hidden=tuple(marks.seen(text, vocabulary) for text in hidden),
        wrapper=marks.seen(wrapper, vocabulary) if wrapper else "",
        texts=texts,
        between="\n\n" if form.headers else "",
    )
