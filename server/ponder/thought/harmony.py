"""Reads the headers of messages in OpenAI's harmony format, which gpt-oss writes.

    <|channel|>analysis<|message|>a thought<|end|><|start|>assistant<|channel|>final<|message|>42

A header says what its message is: a thought, an answer, or a call of a function. It has several
spellings (`final <|constrain|>json`, ` to=functions.f` before the channel or behind it), and each
is one character to the readers of thoughts and answers. Its special tokens are recognised by id.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from ponder.engine.protocol import Vocabulary
from ponder.thought.text import Marks, TextDecoder, mark

THOUGHT, ANSWER, CALL = map(mark, range(3))
"""The characters that stand for a header of each kind; the function's name follows `CALL`."""

_BEGIN = ("<|end|>", "<|start|>", "<|channel|>")
_CHANNEL, _MESSAGE, _CONSTRAIN = "<|channel|>", "<|message|>", "<|constrain|>"
_RECIPIENT = re.compile(r"\bto=([^\s<]+)")
_FUNCTION = "functions."


class Headers(Marks):
    """Harmony's special tokens in one vocabulary, as marks, with a decoder that joins headers."""

    reach = 40
    """Tokens that a header may take, so that one in progress ends no thought at its budget."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        """Empty for a vocabulary that lacks one of the tokens that every header has."""
        ids = {name: vocabulary.encode(name) for name in (*_BEGIN, _MESSAGE, _CONSTRAIN)}
        self.names = {
            token[0]: name
            for name, token in ids.items()
            if len(token) == 1 and not vocabulary.token_bytes(token[0])
        }
        if not {*_BEGIN, _MESSAGE} <= set(self.names.values()):
            self.names = {}
        super().__init__({id_: mark(3 + n) for n, id_ in enumerate(self.names)})
        self.begins = frozenset(id_ for id_, name in self.names.items() if name in _BEGIN)
        self.message = next((id_ for id_, name in self.names.items() if name == _MESSAGE), None)

    def decoder(self, vocabulary: Vocabulary) -> TextDecoder:
        return HarmonyDecoder(vocabulary, self)

    def seen(self, marker: str, vocabulary: Vocabulary) -> str:
        return _kind(marker)[0]

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

    >>> from ponder.engine.scripted import ByteVocabulary
    >>> names = ["<|channel|>", "<|message|>", "<|end|>", "<|start|>"]
    >>> vocabulary = ByteVocabulary(special=names)
    >>> decoder = Headers(vocabulary).decoder(vocabulary)
    >>> said = "<|channel|>analysis<|message|>So."
    >>> "".join(map(decoder.feed, vocabulary.encode(said))) == THOUGHT + "So."
    True
    """

    __slots__ = ("_before", "_header", "_headers", "_vocabulary")

    def __init__(self, vocabulary: Vocabulary, headers: Headers) -> None:
        super().__init__(vocabulary, headers)
        self._vocabulary = vocabulary
        self._headers = headers
        self._header: list[int] = []
        self._before = ""

    def feed(self, token_id: int) -> str:
        if not self._header and token_id not in self._headers.begins:
            return super().feed(token_id)
        if not self._header:
            self._before = super().flush()
        self._header.append(token_id)
        self.pending = token_id != self._headers.message
        if self.pending:
            return ""
        names, spell = self._headers.names, self._vocabulary.token_bytes
        header = b"".join(
            names[id_].encode() if id_ in names else spell(id_) for id_ in self._header
        )
        self._header = []
        return self._before + _kind(header.decode(errors="replace"))

    def flush(self) -> str:
        """The text ends here: half a header is dropped."""
        self._header = []
        return super().flush()


def _kind(header: str) -> str:
    """What a header stands for; a message to anything but a function is no part of the answer."""
    channel = header.rpartition(_CHANNEL)[2].lstrip()
    recipient = _RECIPIENT.search(header)
    if recipient is not None and recipient[1].startswith(_FUNCTION):
        return f"{CALL}{recipient[1].removeprefix(_FUNCTION)}\n"
    return THOUGHT if recipient is not None or channel.startswith("analysis") else ANSWER
