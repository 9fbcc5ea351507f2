"""Fields that clients send and that change nothing about the answer.

Each class has one system's fields. `Ignored` accepts any value; other types accept values that ask
for nothing, and refuse the rest with a remedy. docs/noise.md, made from this file, lists them.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, StrictBool

from ponder.protocol.fields import (
    MOST_METADATA,
    NO_AUDIO,
    Empty,
    Name,
    NoEntries,
    Off,
    PositiveTokens,
    Strict,
    at_most,
    or_say,
)

Ignored = Any
On = Literal[True] | None
Zero = Annotated[float, Field(ge=0, le=0)] | None
One = Annotated[float, Field(ge=1, le=1)] | None

_NO_SEARCH = or_say("this server does not search the web; leave it out")
_NO_PLUG_INS = or_say("this server has no plug-ins of that kind; leave it out")
_NO_MARKERS = or_say("this server never shows special tokens; leave it out")
_NO_BEAMS = or_say("this server does not search beams; leave it out")
_NO_IDS = or_say(
    "this server answers with texts, and /tokenize gives the tokens of one; leave it out"
)
_NO_STOP = or_say("this server never shows the stop string; leave it out")
_NO_PREFILL = or_say("this server begins every answer itself; leave it out")
_NO_IMAGES = or_say("this server reads text only; leave it out")
_NO_DOCUMENTS = or_say("this server looks nothing up: put the documents into the messages")
_NO_TEMPLATE = or_say("this server renders the model's own chat template; leave it out")
_NO_BANS = or_say("this server bans tokens by logit_bias: -100; leave it out")
_NO_PENALTY = or_say("this server's repetition_penalty is another formula: send that, or 1")
_NO_SAMPLER = or_say("this server samples by temperature, top_p, top_k and min_p; leave it out")
_NO_MODERATION = or_say("this server moderates nothing; leave it out")
_NO_TRANSFER = or_say("this server hands no caches to other servers; leave it out")
_NO_EXPERTS = or_say("this server does not tell which experts were used; leave it out")
_NO_WATERMARK = or_say("this server writes no watermark; leave it out")
_NO_RENDERING = or_say("/tokenize gives a prompt's tokens; leave it out")
_NO_SCORES = or_say("/v1/completions scores a prompt by echo: true with logprobs; leave it out")
_NO_CUTS = or_say(
    "this server drops nothing from a prompt; leave it out, or send -1, and shorten the prompt"
)
_LOOPS = or_say("this server closes thoughts that repeat themselves by ponder.loop_exit; send that")


class OpenAINoise(Strict):
    """OpenAI"""

    metadata: Annotated[dict[Name, Name], at_most(MOST_METADATA)] | None = None
    modalities: Annotated[
        Annotated[list[Literal["text"]], Field(max_length=8, fail_fast=True)] | None, NO_AUDIO
    ] = None
    moderation: Annotated[None, _NO_MODERATION] = None
    prediction: Ignored = None
    prompt_cache_key: Name | None = None
    prompt_cache_options: Ignored = None
    prompt_cache_retention: Name | None = None
    safety_identifier: Name | None = None
    service_tier: Name | None = None
    store: StrictBool | None = None
    verbosity: Literal["low", "medium", "high"] | None = None
    web_search_options: Annotated[None, _NO_SEARCH] = None

    @property
    def label(self) -> str | None:
        """The task that the metadata names."""
        return (self.metadata or {}).get("task")


class OpenRouterNoise(Strict):
    """OpenRouter: where a request is served"""

    include: Ignored = None
    models: Ignored = None
    plugins: Annotated[Empty | None, _NO_PLUG_INS] = None
    provider: Ignored = None
    route: Ignored = None
    transforms: Ignored = None
    usage: Ignored = None


class VllmNoise(Strict):
    """vLLM and SGLang"""

    add_generation_prompt: Annotated[On, _NO_PREFILL] = None
    bad_words: Annotated[Empty | None, _NO_BANS] = None
    chat_template: Annotated[None, _NO_TEMPLATE] = None
    continue_final_message: Annotated[Off, _NO_PREFILL] = None
    documents: Annotated[Empty | None, _NO_DOCUMENTS] = None
    ec_transfer_params: Annotated[NoEntries | None, _NO_TRANSFER] = None
    include_stop_str_in_output: Annotated[Off, _NO_STOP] = None
    kv_transfer_params: Annotated[NoEntries | None, _NO_TRANSFER] = None
    length_penalty: Annotated[One, _NO_BEAMS] = None
    logprob_token_ids: Annotated[Empty | None, _NO_IDS] = None
    media_io_kwargs: Annotated[NoEntries | None, _NO_IMAGES] = None
    mm_payload: Ignored = None
    mm_processor_kwargs: Annotated[NoEntries | None, _NO_IMAGES] = None
    priority: Ignored = None
    prompt_logprobs: Annotated[None, _NO_SCORES] = None
    repetition_detection: Annotated[None, _LOOPS] = None
    request_id: Ignored = None
    return_mm_kwargs: Ignored = None
    return_prompt_text: Annotated[Off, _NO_RENDERING] = None
    return_token_ids: Annotated[Off, _NO_IDS] = None
    return_token_offsets: Annotated[Off, _NO_RENDERING] = None
    return_tokens_as_token_ids: Annotated[Off, _NO_IDS] = None
    routed_experts_prompt_start: Annotated[Zero, _NO_EXPERTS] = None
    session_id: Ignored = None
    skip_special_tokens: Annotated[On, _NO_MARKERS] = None
    spaces_between_special_tokens: Ignored = None
    stream_interval: Ignored = None
    stream_reasoning: Ignored = None
    truncate_prompt_tokens: Annotated[Literal[-1] | None, _NO_CUTS] = None
    truncation_side: Ignored = None
    use_beam_search: Annotated[Off, _NO_BEAMS] = None
    watermarking: Annotated[Off, _NO_WATERMARK] = None


class LlamaNoise(Strict):
    """llama.cpp, Ollama and LM Studio"""

    cache_prompt: Ignored = None
    dry_multiplier: Annotated[Zero, _NO_SAMPLER] = None
    dynatemp_range: Annotated[Zero, _NO_SAMPLER] = None
    id_slot: Ignored = None
    keep_alive: Ignored = None
    mirostat: Annotated[Zero, _NO_SAMPLER] = None
    num_ctx: Ignored = None
    options: LlamaOptions | None = None
    repeat_last_n: Ignored = None
    repeat_penalty: Annotated[One, _NO_PENALTY] = None
    tfs_z: Annotated[One, _NO_SAMPLER] = None
    timings_per_token: Ignored = None
    ttl: Ignored = None
    typical_p: Annotated[One, _NO_SAMPLER] = None
    xtc_probability: Annotated[Zero, _NO_SAMPLER] = None


class LlamaOptions(Strict):
    """Ollama's `options`"""

    low_vram: Ignored = None
    main_gpu: Ignored = None
    num_batch: Ignored = None
    num_ctx: Ignored = None
    num_gpu: Ignored = None
    num_thread: Ignored = None
    numa: Ignored = None
    use_mlock: Ignored = None
    use_mmap: Ignored = None


class Noise(OpenAINoise, OpenRouterNoise, VllmNoise, LlamaNoise):
    """All of OpenAI's dialects."""


class ResponsesNoise(Strict):
    """`/v1/responses`"""

    access_programs: Ignored = None
    client_metadata: Annotated[dict[Name, Any], at_most(MOST_METADATA)] | None = None
    max_tool_calls: PositiveTokens | None = None


class MessagesNoise(Strict):
    """`/v1/messages`"""

    betas: Ignored = None
    billing_policy: Ignored = None
    cache_control: Ignored = None
    context_management: Ignored = None
    diagnostics: Ignored = None
    fallback_credit_token: Ignored = None
    fallbacks: Ignored = None
    inference_geo: Ignored = None
    service_tier: Ignored = None
    speed: Ignored = None
    user_profile_id: Ignored = None
    workspace_id: Ignored = None


SYSTEMS = (OpenAINoise, OpenRouterNoise, VllmNoise, LlamaNoise, LlamaOptions)
ENDPOINTS = (ResponsesNoise, MessagesNoise)
