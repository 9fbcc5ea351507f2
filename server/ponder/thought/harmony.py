"""Reads the headers of messages in OpenAI's harmony format, which gpt-oss writes.

    <|channel|>analysis<|message|>a thought<|end|><|start|>assistant<|channel|>final<|message|>42

A header says what its message is: a thought, an answer, or a call of a function. It has several
spellings (`final <|constrain|>json`, ` to=functions.f` before the channel or behind it), and each
is one character to the readers of thoughts and answers. Its special tokens are recognised by id.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from copy import copy

from ponder.engine.protocol import CALL, Vocabulary
from ponder.thought.text import Marks, TextDecoder, mark

THOUGHT, ANSWER = mark(0), mark(1)
"""The characters that stand for a header; behind `CALL`, the function's name follows."""

_BEGIN = ("<|end|>", "<|start|>", "<|channel|>")
_CHANNEL, _MESSAGE, _CONSTRAIN = "<|channel|>", "<|message|>", "<|constrain|>"
_RECIPIENT = re.compile(r"\bto=([^\s<]+)")
_TO = "to="
_FUNCTION = "functions."


class Headers(Marks):
    """Harmony's special tokens in one vocabulary, as marks, with a decoder that joins headers."""

    first = 3
    reach = 100
    """Tokens of the longest header: no more of them are held, and none ends a thought early."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        """Empty for a vocabulary that lacks one of the tokens that every header has."""
        super().__init__()
        self.calls = True
        self.names: dict[int, str] = {}
        for name in (*_BEGIN, _MESSAGE, _CONSTRAIN):
            ids = vocabulary.encode(name)
            if len(ids) == 1 and not vocabulary.token_bytes(ids[0]):
                self.names[ids[0]] = name
        if not {*_BEGIN, _MESSAGE} <= set(self.names.values()):
            self.names = {}
        for token_id in self.names:
            self.add(token_id)
        self.begins = frozenset(id_ for id_, name in self.names.items() if name in _BEGIN)
        self.message = next((id_ for id_, name in self.names.items() if name == _MESSAGE), None)

    def without_calls(self) -> Headers:
        """A call is a thought: nobody runs it."""
        own = copy(self)
        own.calls = False
        return own

    def decoder(self, vocabulary: Vocabulary) -> TextDecoder:
        return HarmonyDecoder(vocabulary, self)

    def seen(self, marker: str, vocabulary: Vocabulary) -> str:
        return self.kind(marker)[0]

    def kind(self, header: str) -> str:
        """What a header stands for; a message to anything but a function is a thought."""
        channel = header.rpartition(_CHANNEL)[2].lstrip()
        recipient = _RECIPIENT.search(header)
        if self.calls and recipient is not None and recipient[1].startswith(_FUNCTION):
            return f"{CALL}{recipient[1].removeprefix(_FUNCTION)}\n"
        return THOUGHT if recipient is not None or channel.startswith("analysis") else ANSWER

    def ending(self, sampled: Sequence[int]) -> int | None:
        """The length of the header at the end: from the first token behind its last body on."""
        if not sampled or sampled[-1] != self.message:
            return 0
        size = 1
        for back, token_id in enumerate(reversed(sampled[:-1]), 2):
            if token_id == self.message:
                break
            if token_id in self.begins:
                size = back
        return size


class HarmonyDecoder(TextDecoder):
    """Decodes a stream of token ids; a header is pending until its last token.

    The first header may begin with its recipient, in front of any special token.

    >>> from ponder.engine.scripted import ByteVocabulary
    >>> names = ["<|channel|>", "<|message|>", "<|end|>", "<|start|>"]
    >>> vocabulary = ByteVocabulary(special=names)
    >>> decoder = Headers(vocabulary).decoder(vocabulary)
    >>> said = "<|channel|>analysis<|message|>So."
    >>> "".join(map(decoder.feed, vocabulary.encode(said))) == THOUGHT + "So."
    True
    """

    __slots__ = ("_before", "_fresh", "_header", "_headers", "_vocabulary")

    def __init__(self, vocabulary: Vocabulary, headers: Headers) -> None:
        super().__init__(vocabulary, headers)
        self._vocabulary = vocabulary
        self._headers = headers
        self._header: list[int] = []
        self._before = ""
        self._fresh = True

    @property
    def half(self) -> bool:
        return bool(self._header) and self._header[0] in self._headers.begins

    def rest(self) -> str:
        return "" if self.half else self._before + self._spelt()

    def feed(self, token_id: int) -> str:
        if not (self._header or self._fresh or token_id in self._headers.begins):
            return super().feed(token_id)
        if not self._header:
            self._before = super().flush()
        elif token_id in self._headers.begins and not self._begun():
            self._before += self._spelt()
            self._header.clear()
        self._fresh = False
        self._header.append(token_id)
        self.pending = True
        if token_id == self._headers.message:
            said = self._headers.kind(self._spelt())
        elif self._may_go_on():
            return ""
        else:
            said = "".join(map(super().feed, self._header))
        self._header.clear()
        self.pending = False
        return self._before + said

    def plain(self, token_ids: Sequence[int]) -> str | None:
        return None if self._fresh else super().plain(token_ids)

    def _may_go_on(self) -> bool:
        """Whether the tokens held may become a header."""
        if len(self._header) >= self._headers.reach:
            return False
        return self._begun() or _TO.startswith(self._spelt().lstrip())

    def _begun(self) -> bool:
        """Whether the tokens held are the beginning of a header."""
        return self._header[0] in self._headers.begins or self._spelt().lstrip().startswith(_TO)

    def _spelt(self) -> str:
        names, spell = self._headers.names, self._vocabulary.token_bytes
        held = (names[id_].encode() if id_ in names else spell(id_) for id_ in self._header)
        return b"".join(held).decode(errors="replace")
