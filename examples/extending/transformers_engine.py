"""An engine on plain transformers: it samples one token after the other, a request per thread.

Run it from this folder, with nothing but the model:

    ponder serve MODEL --engine transformers_engine
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from ponder.engine.protocol import Chunk, EngineFacts, EngineRequest, Load, RequestRefusedError
from ponder.engine.pulse import Pulse


class TransformersEngine:
    """Samples by temperature, stop ids and seed; refuses a request with any other sampling rule."""

    def __init__(self, model: PreTrainedModel, eos: frozenset[int]) -> None:
        length = model.config.get_text_config().max_position_embeddings
        self.facts = EngineFacts(max_model_len=length, max_logprobs=0)
        self._model = model
        self._eos = eos
        self._pulse = Pulse()
        self._unfinished = 0

    async def generate(self, request: EngineRequest) -> AsyncGenerator[Chunk, None]:
        rules = request.sampling
        if (rules.top_p, rules.top_k, rules.min_p) != (1.0, 0, 0.0) or rules.logprobs is not None:
            raise RequestRefusedError("this engine has no top_p, top_k, min_p and no logprobs")
        stops = {*rules.stop_token_ids, *(() if rules.ignore_eos else self._eos)}
        draw = torch.Generator().manual_seed(rules.seed or random.getrandbits(32))
        ids, cache = torch.tensor([list(request.prompt)]), None
        self._unfinished += 1
        self._pulse.begin()
        try:
            for count in range(1, rules.max_tokens + 1):
                # The server cuts a thought by closing this generator, which ends the loop here.
                logits, cache = await asyncio.to_thread(self._step, ids, cache)
                for token, bias in rules.logit_bias.items():
                    logits[token] += bias
                if count <= rules.min_tokens:
                    logits[[*stops]] = -torch.inf
                sampled = int(
                    torch.multinomial((logits / rules.temperature).softmax(-1), 1, generator=draw)
                    if rules.temperature
                    else logits.argmax()
                )
                self._pulse.beat()
                ids = torch.tensor([[sampled]])
                if sampled in stops:
                    yield Chunk([sampled], "stop")
                    return
                yield Chunk([sampled], "length" if count == rules.max_tokens else None)
        finally:
            self._unfinished -= 1
            self._pulse.end()

    @torch.no_grad()
    def _step(self, ids: torch.Tensor, cache: object) -> tuple[torch.Tensor, object]:
        """Logits (V) of the next token, and the keys and values of all before it."""
        output = self._model(input_ids=ids, past_key_values=cache, use_cache=True)
        return output.logits[0, -1].float(), output.past_key_values

    def unfinished(self) -> int:
        return self._unfinished

    def silence(self) -> float:
        return self._pulse.silence()

    async def check_health(self) -> None:
        """The engine lives as long as this process."""

    def shutdown(self) -> None:
        """Do nothing: the engine holds no process or thread of its own."""


def load(load: Load) -> TransformersEngine:
    model = AutoModelForCausalLM.from_pretrained(load.name)
    return TransformersEngine(model.eval(), load.vocabulary.eos_token_ids)
