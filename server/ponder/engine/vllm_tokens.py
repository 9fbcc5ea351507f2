"""Converts the rules of sampling for vLLM, and the log probabilities from it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from ponder.engine import vllm_grammars
from ponder.engine.protocol import EngineRequest, Sampling, TokenLogprob

if TYPE_CHECKING:
    from vllm.outputs import CompletionOutput, RequestOutput


def sampling_params(sampling: Sampling) -> Any:
    from vllm.sampling_params import RequestOutputKind, SamplingParams

    return SamplingParams(
        max_tokens=sampling.max_tokens,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        top_k=sampling.top_k,
        min_p=sampling.min_p,
        presence_penalty=sampling.presence_penalty,
        frequency_penalty=sampling.frequency_penalty,
        repetition_penalty=sampling.repetition_penalty,
        seed=sampling.seed,
        min_tokens=sampling.min_tokens,
        stop_token_ids=list(sampling.stop_token_ids),
        ignore_eos=sampling.ignore_eos,
        logprobs=sampling.logprobs,
        prompt_logprobs=sampling.prompt_logprobs,
        flat_logprobs=True,  # vLLM keeps all of them; as objects they slow every garbage collection
        logit_bias=dict(sampling.logit_bias) or None,
        structured_outputs=None
        if (rule := sampling.grammar) is None
        else vllm_grammars.parameters(rule),
        stream_interval=sampling.chunk_tokens,
        output_kind=RequestOutputKind.DELTA,
        detokenize=False,
        skip_clone=True,
    )


def logprobs_of(part: CompletionOutput) -> list[TokenLogprob]:
    """vLLM's log probabilities; at each position the sampled token comes first, even if best."""
    return [_entry(*position) for position in _positions(part.token_ids, part.logprobs)]


def prompt_logprobs_of(
    request: EngineRequest, output: RequestOutput
) -> list[TokenLogprob | None] | None:
    if request.sampling.prompt_logprobs is None or output.prompt_logprobs is None:
        return None
    positions = _positions(request.prompt, output.prompt_logprobs)
    return [_entry(*position) if position[1] else None for position in positions]


def _positions(token_ids: Sequence[int], flat: Any) -> Iterator[tuple[int, dict[int, float]]]:
    """Each position's token, with the log probabilities that vLLM returns for the position."""
    if not flat:
        return
    for token_id, start, end in zip(token_ids, flat.start_indices, flat.end_indices, strict=True):
        yield token_id, dict(zip(flat.token_ids[start:end], flat.logprobs[start:end], strict=True))


def _entry(token_id: int, found: dict[int, float]) -> TokenLogprob:
    top = tuple(sorted(found.items(), key=lambda item: -item[1]))
    return TokenLogprob(token_id, found[token_id], top)
