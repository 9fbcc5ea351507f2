"""Writes an answer that may call functions: its text, and its calls beside it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field, replace

from ponder.engine.protocol import AnswerParser, CallPart, TokenLogprob, Vocabulary
from ponder.thought.answer import AnswerDelta, AnswerWriter
from ponder.thought.format import AnswerMarkup

BLOCK = 16
"""Tokens of a call that are parsed at once: some parsers read a call anew with every block."""

_TOKENS = ("<|", "<｜", "]<]")  # how the tokens begin that markers are made of
_NAME = '"name"'  # with it begin calls that no marker precedes
_NEXT = "."


@dataclass(frozen=True, slots=True)
class CallRules:
    """How an answer's calls are read.

    `parser` makes the parser of one answer, and `spelt` are the special tokens whose text it looks
    for. An answer ends with its first call unless it may have `several`.
    """

    parser: Callable[[], AnswerParser]
    spelt: Mapping[int, str] = field(default_factory=dict)
    several: bool = True


class CallWriter(AnswerWriter):
    """Turns answer tokens into text and parts of calls.

    Text before a call is shown without the blank at its end, and blank behind one is not shown.
    `calls` counts those whose arguments are whole. An answer of one call is parsed as it is fed,
    whatever the chunks, so that it ends at the same token in all of them; what follows the call is
    not shown.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        rules: CallRules,
        stop: Sequence[str] = (),
        *,
        markup: AnswerMarkup | None = None,
    ) -> None:
        super().__init__(vocabulary, stop, markup=_spelling(markup or AnswerMarkup(), rules.spelt))
        self._parser = rules.parser()
        self._names = rules.spelt
        self._several = rules.several
        self._unparsed = AnswerDelta("")
        self._ids: list[int] = []  # tokens of the unparsed and of the held text
        self._parsed: list[str] = []
        self._said = 0  # characters of the parsed text that were emitted as text
        self._blank = ""  # blank at the end of the text so far
        self._arguments: list[str] = []
        self._found: list[AnswerDelta | CallPart] = []  # parsed and not taken

    def feed(self, token_id: int, logprob: TokenLogprob | None = None) -> None:
        if not self.stopped:
            self._ids.append(token_id)
        super().feed(token_id, logprob)
        if not (self._several or self.stopped):
            self._found += self._parse()

    def feed_plain(self, token_ids: Sequence[int]) -> bool:
        taken = self._several and super().feed_plain(token_ids)
        if taken:
            self._ids.extend(token_ids)
        return taken

    def events(self, *, last: bool = False, cut: bool = False) -> Sequence[AnswerDelta | CallPart]:
        found, self._found = self._found, []
        return (*found, *self._parse(last=last, cut=cut))

    def _parse(self, *, last: bool = False, cut: bool = False) -> Sequence[AnswerDelta | CallPart]:
        delta, before = self.take(last=last), self._unparsed
        if delta is not None:
            before = AnswerDelta(before.text + delta.text, (*before.logprobs, *delta.logprobs))
        self._unparsed = before
        gathering = self.holds or (self._arguments and len(self._ids) < BLOCK)
        if not last and (gathering or not self._ids):
            return ()
        cut = cut or (self.stopped and not self.calls)
        called = bool(self._arguments)
        # A parser completes a call when told that the answer ended: half a call would be run.
        text, parts = self._parser.feed(before.text, self._ids, last=last and not cut)
        if called and not self._several:
            text = ""
        self._parsed.append(before.text)
        begun = False
        if last and not (parts or self._arguments):
            unsaid = "".join(self._parsed)[self._said :]
            begun = cut and self._begins(unsaid[len(text) :])
            text = text if begun else unsaid  # what looked like a call and was none
        self._said += len(text)
        for token_id in self._names.keys() & self._ids if text else ():
            text = text.replace(self._names[token_id], "")
        text = self._trimmed(text, last=last and not parts and not begun)
        self._unparsed, self._ids = AnswerDelta(""), []
        calls = [part for part in parts if self._takes(part)]
        if not self._several and self.calls:
            self.stopped = True
        return (*((AnswerDelta(text, before.logprobs),) if text or before.logprobs else ()), *calls)

    @property
    def calls(self) -> int:
        return sum(map(_whole, self._arguments))

    def _begins(self, held: str) -> bool:
        """Whether the text that the parser holds at a cut begins a call.

        A parser gives text back once the next character shows that it is no marker.
        """
        if not held or held.startswith(_TOKENS):
            return bool(held)
        if held.startswith(("{", "[{")):
            inner = held.lstrip("[{ \n")
            return inner.startswith(_NAME) or _NAME.startswith(inner)
        released, _ = self._parser.feed(_NEXT, ())
        return not released

    def _trimmed(self, text: str, *, last: bool) -> str:
        """Text without the blank at its end, which is kept until more text follows."""
        text = self._blank + text
        shown = text if last and not self._arguments else text.rstrip()
        self._blank = text[len(shown) :]
        return shown

    def _takes(self, part: CallPart) -> bool:
        """Add a part to its call; False if the answer may not have that call."""
        if part.index == len(self._arguments) and (self._several or not self._arguments):
            self._arguments.append("")
        known = part.index < len(self._arguments)
        if known:
            self._arguments[part.index] += part.arguments
        return known


def _spelling(markup: AnswerMarkup, spelt: Mapping[int, str]) -> AnswerMarkup:
    """The markup of an answer that shows these special tokens by their text."""
    marks = copy(markup.marks)
    for token_id in spelt:
        marks.add(token_id)
    texts = {marks[token_id]: text for token_id, text in spelt.items()}
    return replace(markup, marks=marks, texts={**markup.texts, **texts}, spelt=True)


def _whole(arguments: str) -> bool:
    if not arguments.rstrip().endswith("}"):
        return False
    try:
        return isinstance(json.loads(arguments), dict)
    except (ValueError, RecursionError):  # no JSON, or nested too deeply to parse
        return False
