"""Rollouts by a vLLM that lives in the trainer's process and takes the trainer's weights.

vLLM draws its own random numbers, so such a run does not repeat itself to the bit. The
log-probabilities that it drew with are kept for `correction`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import torch

from ponder.engine.tokenizer import ModelFiles
from ponder.engine.vllm import parse_options, prepare

from ..rollout.experience import Share
from ..run.checks import beside_prompt
from ..run.recipe import PolicyRecipe
from .correction import Drawn
from .protocol import Weights

# Of a GPU's memory, for weights and KV cache; the trainer needs the rest.
_MEMORY_SHARE = 0.3


# Rows that vLLM runs side by side; more wait in its queue.
_MOST_ROWS = 1024


def options_for(recipe: PolicyRecipe, world: int) -> list[str]:
    """vLLM's options for the rollouts of a recipe on one of `world` processes."""
    method, watched = recipe.method, recipe.validation
    rows = recipe.rollouts.prompts * method.group_size * max(1, method.branches)
    rows = max(rows, watched.problems * watched.samples) // world
    options = [f"--max-num-seqs={min(max(rows, 1), _MOST_ROWS)}"]
    if (prompt := recipe.rollouts.longest_prompt) is not None:
        # The model's own length may ask for more cache than there is. A word may be two tokens.
        options.append(f"--max-model-len={prompt + beside_prompt(recipe)[0]}")
    return [*options, *recipe.rollouts.vllm_options]


class VLLMSampler:
    """Samples with vLLM from weights that `load` hands over.

    It begins with those of `base`, and keeps their precision. `options` are vLLM's own, such as
    `--gpu-memory-utilization`; `drawn` has the log-probabilities of what was sampled, by the
    version of the weights: the last one alone.
    """

    def __init__(self, base: ModelFiles, share: Share, options: Sequence[str] = ()) -> None:
        # The engine's core must run here, where `load` can reach its model.
        os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
        chosen = prepare(base.directory)
        from vllm import LLM

        given = ["--gpu-memory-utilization", str(_MEMORY_SHARE), *chosen]
        given += ["--seed", str(share.rank), *options]
        given += ["--logprobs-mode", "processed_logprobs"]  # at the temperature
        if share.world > 1:
            # One engine for each process that torchrun or accelerate has started.
            given += ["--distributed-executor-backend", "external_launcher"]
        arguments = vars(parse_options(base.name, given))
        del arguments["enable_log_requests"]  # of servers alone
        self._llm = LLM(**arguments)
        self._now = Drawn()
        self.drawn = {0: self._now}

    def close(self) -> None:
        """It ends with this process."""

    def load(self, weights: Weights, version: int) -> None:
        """Replace the weights, tensor by tensor; what was computed with the old ones is dropped."""
        # Not `load_weights`: what a kernel has packed at the start must be packed anew.
        self._llm.collective_rpc("reload_weights", kwargs={"weights_iterator": weights()})
        self._llm.apply_model(pack_vocabulary)
        self._llm.reset_prefix_cache()
        self._now = Drawn()
        self.drawn = {version: self._now}

    def sample(
        self,
        temperature: float,
        prompts: Sequence[Sequence[int]],
        noise_BT: torch.Tensor,
        stop_ids: frozenset[int],
    ) -> list[list[int]]:
        """A `Sampler` once its temperature is given; of `noise_BT` only the width counts."""
        from vllm import SamplingParams, TokensPrompt

        asked = SamplingParams(
            temperature=temperature,
            max_tokens=noise_BT.shape[1],
            stop_token_ids=sorted(stop_ids),
            ignore_eos=True,
            detokenize=False,
            logprobs=0,
        )
        inputs = [TokensPrompt(prompt_token_ids=list(prompt)) for prompt in prompts]
        found = []
        for prompt, output in zip(
            prompts, self._llm.generate(inputs, asked, use_tqdm=False), strict=True
        ):
            (said,) = output.outputs
            ids = list(said.token_ids)
            drawn = [at[token].logprob for at, token in zip(said.logprobs, ids, strict=True)]
            self._now.note(prompt, ids, drawn)
            found.append(ids)
        return found


def pack_vocabulary(model: torch.nn.Module) -> None:
    """A reload passes over embeddings with padded entries; on a CPU their head is packed, too."""
    from vllm.model_executor.layers.vocab_parallel_embedding import VocabParallelEmbedding

    for module in model.modules():
        if isinstance(module, VocabParallelEmbedding):
            module.quant_method.process_weights_after_loading(module)
