"""Log probabilities as replies write them: JSON text, made as they come."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from itertools import islice

from ponder.engine.protocol import TokenLogprob

LEAST = -9999.0  # for what cannot be: JSON has no infinity. vLLM's server says the same.


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
        """Entries of `content`, with commas between them."""
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
