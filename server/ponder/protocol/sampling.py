"""The sampling that a request asks for, in any dialect."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ponder.engine.protocol import Sampling

SEED_MASK = (1 << 63) - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingAsk:
    """The request's sampling; None stands for the model's own recommendation."""

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    seed: int | None = None
    ignore_eos: bool = False
    logit_bias: Mapping[int, float] | None = None
    cache_salt: str | None = None

    def over(
        self, recommended: Mapping[str, float], *, logprobs: int | None, chunk_tokens: int
    ) -> Sampling:
        """The request's values, else the model's `recommended` ones, else neutral defaults.

        A thought sets `max_tokens` for each of its segments.
        """
        chosen = dict(recommended)
        for name in ("temperature", "top_p", "top_k", "min_p", "repetition_penalty"):
            value = getattr(self, name)
            if value is not None:
                chosen[name] = value
        chosen["top_k"] = max(0, int(chosen.get("top_k", 0)))
        return Sampling(
            max_tokens=0,
            **chosen,  # type: ignore[arg-type]
            presence_penalty=self.presence_penalty,
            frequency_penalty=self.frequency_penalty,
            seed=None if self.seed is None else self.seed & SEED_MASK,
            ignore_eos=self.ignore_eos,
            logprobs=logprobs,
            logit_bias=self.logit_bias or {},
            chunk_tokens=chunk_tokens,
            cache_salt=self.cache_salt,
        )
