"""Token ids to text, one incremental decoder per segment."""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable, Sequence

from ponder.engine.protocol import Vocabulary

_MARK = re.compile("[\ud800-\udfff]")


class Marks(dict[int, str]):
    """Token id → the character that stands for it: a surrogate, which no UTF-8 can spell."""

    first = 0
    """The number of the first mark that `add` gives."""
    reach = 0
    """How many tokens together may become one mark; 0 where each has its own."""

    def add(self, token_id: int) -> None:
        """Give a token a mark, unless it has one."""
        self.setdefault(token_id, mark(self.first + len(self)))

    def without_calls(self) -> Marks:
        """The marks for a request in which nothing is a call."""
        return self

    def decoder(self, vocabulary: Vocabulary) -> TextDecoder:
        return TextDecoder(vocabulary, self)

    def seen(self, marker: str, vocabulary: Vocabulary) -> str:
        """A marker as the decoder spells its tokens."""
        ids = vocabulary.encode(marker)
        if self.keys().isdisjoint(ids):
            return marker
        return "".join(map(self.decoder(vocabulary).feed, ids))

    def ending(self, sampled: Sequence[int]) -> int | None:
        """How many of the last tokens are one mark; None where the marker's text must tell."""
        return None


class TextDecoder:
    """Decodes a stream of token ids, holding back the bytes of an unfinished character.

    Invalid UTF-8 becomes U+FFFD, so at most three bytes are ever held. Tokens in `marks` become
    the characters that stand for them. `pending` is True in the middle of a character.
    """

    __slots__ = ("_decoder", "_marks", "_token_bytes", "pending")

    def __init__(self, vocabulary: Vocabulary, marks: Marks | None = None) -> None:
        self._token_bytes = vocabulary.token_bytes
        self._marks = Marks() if marks is None else marks
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self.pending = False

    def feed(self, token_id: int) -> str:
        if token_id in self._marks:
            return self.flush() + self._marks[token_id]
        data = self._token_bytes(token_id)
        if not self.pending and data.isascii():
            return data.decode()  # most tokens, at a quarter of the decoder's price
        text = self._decoder.decode(data)
        self.pending = bool(self._decoder.getstate()[0])
        return text

    def plain(self, token_ids: Sequence[int]) -> str | None:
        """The text of tokens that begin and end no character halfway and hold no mark, or None."""
        if self.pending or not self._marks.keys().isdisjoint(token_ids):
            return None
        try:
            return b"".join(map(self._token_bytes, token_ids)).decode()
        except UnicodeDecodeError:
            return None

    @property
    def half(self) -> bool:
        """Whether the tokens held are part of a marker, and not of a character."""
        return False

    def rest(self) -> str:
        """The text ends here: what was held, and is text after all."""
        return ""

    def flush(self) -> str:
        """The text ends here: an unfinished character becomes U+FFFD."""
        self.pending = False
        return self._decoder.decode(b"", final=True)


def mark(number: int) -> str:
    """The character that stands for the marked token `number`, counted from 0."""
    return chr(0xD800 + number)


def unmarked(text: str) -> str:
    """The text without the characters that stand for tokens."""
    return text if text.isascii() else _MARK.sub("", text)


def before_marks(text: str) -> int:
    """How many characters precede the first that stands for a token."""
    found = _MARK.search(text)
    return len(text) if found is None else found.start()


def marked_bytes(vocabulary: Vocabulary, marks: Marks) -> Callable[[int], bytes]:
    """A function from token id to bytes; a marked token has the bytes of its character."""
    if not marks:
        return vocabulary.token_bytes
    spelt = {token_id: as_bytes(text) for token_id, text in marks.items()}
    return lambda token_id: spelt.get(token_id) or vocabulary.token_bytes(token_id)


def as_bytes(text: str) -> bytes:
    """A text in UTF-8, including the characters that stand for tokens."""
    return text.encode(errors="surrogatepass")


def overlap(text: str, marker: str) -> int:
    """Length of the longest proper prefix of `marker` that `text` ends with."""
    for size in range(min(len(text), len(marker) - 1), 0, -1):
        if text.endswith(marker[:size]):
            return size
    return 0


def clean_cut(before: str, after: str) -> bool:
    """True where text may be cut in two: after a line or after a sentence.

    A full stop ends a sentence only if a blank follows it: 3.14 is no place to cut.
    """
    if before.endswith(("\n", "。", "！", "？")):
        return True
    blank = before[-1:].isspace() or after[:1].isspace()
    return blank and before.rstrip().endswith((".", "!", "?", "…"))
