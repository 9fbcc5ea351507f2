"""Log probabilities as replies write them: JSON text, made as they come."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from itertools import islice

from ponder.engine.protocol import TokenLogprob

_LEAST = -9999.0  # for what cannot be: JSON has no infinity. vLLM's server says the same.


class TokenTexts(dict[int, tuple[str, str]]):
    """What a reply says of a token before and after its log probability, made once for each."""

    def __init__(self, token_bytes: Callable[[int], bytes]) -> None:
        super().__init__()
        self._token_bytes = token_bytes

    def __missing__(self, token_id: int) -> tuple[str, str]:
        raw = self._token_bytes(token_id)
        token = json.dumps(raw.decode("utf-8", errors="replace"))
        values = ",".join(map(str, raw))
        texts = self[token_id] = (f'{{"token":{token},"logprob":', f',"bytes":[{values}]')
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
                before, after = texts[token_id]
                top.append(f"{before}{logprob if logprob > _LEAST else _LEAST}{after}}}")
            before, after = texts[entry.token_id]
            logprob = entry.logprob if entry.logprob > _LEAST else _LEAST
            written.append(f'{before}{logprob}{after},"top_logprobs":[{",".join(top)}]}}')
        return ",".join(written)

    def around(self, entries: str) -> str:
        return "null" if self._top is None else f'{{"content":[{entries}]}}'
