"""Writes log probabilities for replies, as JSON text, while they come."""

from __future__ import annotations

import codecs
import json
from collections.abc import Callable, Sequence
from itertools import islice

from ponder.engine.protocol import TokenLogprob
from ponder.thought.answer import AnswerDelta

Columns = tuple[str, str, str, str]
"""The entries of a text's four lists of log probabilities, joined by commas."""
NOTHING: Columns = ("", "", "", "")

LEAST = -9999.0  # for impossible tokens: JSON has no infinity. vLLM's server sends the same.


class TokenTexts(dict[int, tuple[str, str]]):
    """A token's text and bytes as JSON, without the list's brackets, made once for each token."""

    def __init__(self, token_bytes: Callable[[int], bytes]) -> None:
        super().__init__()
        self.token_bytes = token_bytes

    def __missing__(self, token_id: int) -> tuple[str, str]:
        raw = self.token_bytes(token_id)
        token = json.dumps(raw.decode("utf-8", errors="replace"))
        texts = self[token_id] = (token, ",".join(map(str, raw)))
        return texts


class LogprobWriter:
    """Writes `ChoiceLogprobs` with `top` alternatives; null where `top` is None."""

    def __init__(self, texts: TokenTexts, top: int | None) -> None:
        self._texts = texts
        self._top = top

    def entries(self, logprobs: Sequence[TokenLogprob]) -> str:
        """The entries of `content`, joined by commas."""
        if self._top is None:
            return ""
        texts, written = self._texts, []
        for entry in logprobs:
            top = []
            for token_id, logprob in islice(entry.top, self._top):
                token, raw = texts[token_id]
                shown = logprob if logprob > LEAST else LEAST
                top.append(f'{{"token":{token},"logprob":{shown},"bytes":[{raw}]}}')
            token, raw = texts[entry.token_id]
            shown = entry.logprob if entry.logprob > LEAST else LEAST
            written.append(
                f'{{"token":{token},"logprob":{shown},"bytes":[{raw}],'
                f'"top_logprobs":[{",".join(top)}]}}'
            )
        return ",".join(written)

    def around(self, entries: str) -> str:
        return "null" if self._top is None else f'{{"content":[{entries}]}}'


class TextLogprobWriter:
    """One choice's log probabilities, written as the four lists of `TextLogprobs`.

    `echoed` characters of the prompt precede the text.
    """

    def __init__(self, texts: TokenTexts, top: int, echoed: int = 0) -> None:
        self._texts = texts
        self._top = top
        self._echoed = echoed
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._read = 0  # characters of the tokens so far
        self._hidden: int | None = None  # characters at their beginning that are not shown

    def prompt(self, token_ids: Sequence[int], entries: Sequence[TokenLogprob | None]) -> Columns:
        """The entries of a prompt's tokens, the first of which has no log probability."""
        read = codecs.getincrementaldecoder("utf-8")("replace")
        told, at = [], 0
        for token_id, entry in zip(token_ids, entries, strict=True):
            token = self._texts[token_id][0]
            told.append((token, *(self._told(entry) if entry else ("null", "null")), str(at)))
            at += len(read.decode(self._texts.token_bytes(token_id)))
        return _joined(told)

    def columns(self, answer: AnswerDelta) -> Columns:
        """The entries of each list, joined by commas."""
        told, starts, said = [], [], ""
        for entry in answer.logprobs:
            told.append((self._texts[entry.token_id][0], *self._told(entry)))
            starts.append(self._read + len(said))
            said += self._decoder.decode(self._texts.token_bytes(entry.token_id))
        self._read += len(said)
        if self._hidden is None:
            self._hidden = _hidden(said, answer.text)
        offsets = [str(self._echoed + max(0, start - self._hidden)) for start in starts]
        return _joined([(*entry, at) for entry, at in zip(told, offsets, strict=True)])

    def _told(self, entry: TokenLogprob) -> tuple[str, str]:
        """A token's log probability, and those of the token and its best alternatives."""
        logprob = max(LEAST, entry.logprob)  # in this order, NaN is LEAST, too
        top = {self._texts[entry.token_id][0]: logprob}
        for token_id, other in islice(entry.top, self._top):
            top.setdefault(self._texts[token_id][0], max(LEAST, other))
        return str(logprob), f"{{{','.join(f'{name}:{value}' for name, value in top.items())}}}"


def _joined(entries: Sequence[tuple[str, str, str, str]]) -> Columns:
    first, second, third, fourth = ([entry[at] for entry in entries] for at in range(4))
    return ",".join(first), ",".join(second), ",".join(third), ",".join(fourth)


def _hidden(said: str, shown: str) -> int:
    """How many characters of the first tokens are not shown; negative where more are shown.

    Leading blank may be dropped, an answer prefix may precede the tokens, and the end of the last
    token may be held back, as it may begin a stop string.
    """
    if shown.endswith(said) or said.endswith(shown):
        return len(said) - len(shown)
    for begins in (said, said.lstrip()):
        for prefix in range(len(shown)):
            if begins.startswith(shown[prefix:]) or shown.startswith(begins, prefix):
                return len(said) - len(begins) - prefix
    return 0


def written(columns: Sequence[Sequence[bytes | bytearray]]) -> list[bytes | bytearray]:
    """The four lists as JSON; each column is in parts."""
    names = ("tokens", "token_logprobs", "top_logprobs", "text_offset")
    parts: list[bytes | bytearray] = [b"{"]
    for index, (name, column) in enumerate(zip(names, columns, strict=True)):
        parts += [f'{"," if index else ""}"{name}":['.encode(), *column, b"]"]
    return [*parts, b"}"]
