"""Takes an engine's first tokens, so that it compiles and allocates before a client waits.

vLLM samples on several paths, each of which may compile on first use: a client's first `logprobs`
held up all others for seconds, and ended an engine that had no compiler to call.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from ponder.engine.protocol import (
    Engine,
    EngineError,
    EngineRequest,
    Grammar,
    RequestRefusedError,
    Sampling,
)

_TOKENS = 2
PATHS: Mapping[str, Mapping[str, Any]] = {
    "plain sampling": {},
    "greedy sampling": {"temperature": 0.0},
    "top_k, top_p and min_p": {"top_k": 5, "top_p": 0.9, "min_p": 0.05},
    "logprobs": {"logprobs": 2},
    "penalties": {
        "presence_penalty": 0.1,
        "frequency_penalty": 0.1,
        "repetition_penalty": 1.1,
    },
    "seeds": {"seed": 1},
    "logit_bias": {"logit_bias": {0: -1.0}},
    "min_tokens": {"min_tokens": 1, "stop_token_ids": (0,)},
    "prompt_logprobs": {"prompt_logprobs": 2},
    "grammars": {"grammar": Grammar("json", '{"type": "object"}')},
}
"""Sampling rules by name, one for each path."""


class WarmupError(EngineError):
    """The engine gives no tokens; the message names the path."""


async def warm_up(engine: Engine, prompt: Sequence[int]) -> None:
    """Take every path alone, then all at once, twice each: a batch compiles for another shape.

    An engine may refuse all paths but plain sampling. Raises `WarmupError`.
    """
    numbers = itertools.count()

    async def take(path: str) -> None:
        rules = dict(PATHS[path])
        for name in rules.keys() & {"logprobs", "prompt_logprobs"}:
            if (most := engine.facts.max_logprobs) is not None:
                rules[name] = min(rules[name], most)
        sampling = Sampling(max_tokens=_TOKENS, **rules)
        try:
            request = EngineRequest(prompt, sampling, f"warm-up-{next(numbers)}")
            async for _ in engine.generate(request):
                pass
        except EngineError as error:
            if isinstance(error, RequestRefusedError) and PATHS[path]:
                return  # the engine lacks this path, and will refuse it to clients
            raise WarmupError(f"the engine loaded, but fails at {path}: {error}") from error

    lacking = {"grammars"} if engine.facts.check is None else set()
    lacking |= set() if engine.facts.scores_prompts else {"prompt_logprobs"}
    paths = [path for path in PATHS if path not in lacking]
    for path in paths:
        await take(path)
    await asyncio.gather(*map(take, (*paths, *paths)))
