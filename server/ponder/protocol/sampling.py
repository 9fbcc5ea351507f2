"""What a request says of how its tokens are sampled, whatever dialect it was written in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ponder.engine.protocol import Sampling

SEED_MASK = (1 << 63) - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingAsk:
    """The request's wishes; None is what the model itself recommends."""

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
        """The wishes over the model's recommendations over neutral defaults.

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
