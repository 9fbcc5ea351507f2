"""Token ids to text, one incremental decoder per segment."""

from __future__ import annotations

import codecs

from ponder.engine.protocol import Vocabulary


class TextDecoder:
    """Decodes a stream of token ids, holding back the bytes of an unfinished character.

    Invalid UTF-8 becomes U+FFFD, so at most three bytes are ever held.
    `pending` is True in the middle of a character.
    """

    __slots__ = ("_decoder", "_token_bytes", "pending")

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._token_bytes = vocabulary.token_bytes
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self.pending = False

    def feed(self, token_id: int) -> str:
        data = self._token_bytes(token_id)
        if not self.pending and data.isascii():
            return data.decode()  # most tokens, at a quarter of the decoder's price
        text = self._decoder.decode(data)
        self.pending = bool(self._decoder.getstate()[0])
        return text

    def flush(self) -> str:
        """The text ends here: an unfinished character becomes U+FFFD."""
        self.pending = False
        return self._decoder.decode(b"", final=True)


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
