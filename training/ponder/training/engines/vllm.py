"""Rollouts by a vLLM that lives in the trainer's process and takes the trainer's weights.

vLLM draws its own random numbers, so such a run does not repeat itself to the bit. How far its
log-probabilities differ from the trainer's is not corrected for.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

import torch

from ponder.engine.tokenizer import ModelFiles
from ponder.engine.vllm import parse_options, prepare

from ..rollout.experience import Share

# Of a GPU's memory, for weights and KV cache; the trainer needs the rest.
_MEMORY_SHARE = 0.3


class VLLMSampler:
    """Samples with vLLM from weights that `load` hands over.

    It begins with those of `base`, and keeps their precision.
    """

    def __init__(self, base: ModelFiles, temperature: float, share: Share) -> None:
        # The engine's core must run here, where `load` can reach its model.
        os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
        chosen = prepare(base.directory)
        from vllm import LLM

        options = ["--gpu-memory-utilization", str(_MEMORY_SHARE), *chosen]
        options += ["--seed", str(share.rank)]
        if share.world > 1:
            # One engine for each process that torchrun or accelerate has started.
            options += ["--distributed-executor-backend", "external_launcher"]
        arguments = vars(parse_options(base.name, options))
        del arguments["enable_log_requests"]  # of servers alone
        self._llm = LLM(**arguments)
        self._temperature = temperature

    def load(self, weights: Iterable[tuple[str, torch.Tensor]]) -> None:
        """Replace the weights, tensor by tensor; what was computed with the old ones is dropped."""
        self._llm.apply_model(lambda model: len(model.load_weights(weights)))
        self._llm.reset_prefix_cache()

    def sample(
        self, prompts: Sequence[Sequence[int]], noise_BT: torch.Tensor, stop_ids: frozenset[int]
    ) -> list[list[int]]:
        """A `Sampler`; of `noise_BT` only the width counts."""
        from vllm import SamplingParams, TokensPrompt

        asked = SamplingParams(
            temperature=self._temperature,
            max_tokens=noise_BT.shape[1],
            stop_token_ids=sorted(stop_ids),
            ignore_eos=True,
            detokenize=False,
        )
        inputs = [TokensPrompt(prompt_token_ids=list(prompt)) for prompt in prompts]
        outputs = self._llm.generate(inputs, asked, use_tqdm=False)
        return [list(output.outputs[0].token_ids) for output in outputs]
