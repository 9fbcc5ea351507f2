"""The APIs of inference servers: builds request bodies, and parses server-sent events.

`generate` is vLLM's route for token ids in and out (`--enable-scale-out` or `--tokens-only`),
`completions` its OpenAI route, and `sglang` the route of SGLang, written from its sources
(0.5.x) and tried on no GPU. Servers silently ignore unknown fields: `http_probe` finds out what
they support.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

from ponder.engine.http_wire import Interrupted
from ponder.engine.protocol import EngineRequest, Grammar, Sampling, TokenLogprob

Event = Mapping[str, Any]
Finish = Literal["stop", "length"]
_FINISHES = ("stop", "length")


@dataclass(frozen=True, slots=True)
class Piece:
    """The content of one event: newly sampled tokens, and the server's report beside them.

    `cached` is how many prompt tokens its prefix cache had. It may come after `finish`.
    """

    token_ids: Sequence[int] = ()
    finish: Finish | None = None
    logprobs: Sequence[TokenLogprob] | None = None
    cached: int | None = None


@dataclass(frozen=True, slots=True)
class Dialect:
    """The API of one kind of server.

    `body` makes a request's body from the request and the model's name. `parse` reads an event,
    given the number of tokens before it; it raises `Interrupted`, and `KeyError`, `TypeError` or
    `ValueError` for an event that it cannot read. `abort` is a path for servers that do not notice
    at once that their client has left.
    """

    path: str
    body: Callable[[EngineRequest, str], dict[str, Any]]
    parse: Callable[[Event, int], Piece]
    serves: str
    abort: str | None = None


def _finish(reason: str | None) -> Finish | None:
    if reason is not None and reason not in _FINISHES:
        raise Interrupted("failed", f"the server ended the request with {reason!r}")
    return cast("Finish | None", reason)


def _vllm(sampling: Sampling) -> dict[str, Any]:
    """All of vLLM's fields: an absent one would come from the server's generation_config.json."""
    grammar = sampling.grammar
    return {
        "max_tokens": sampling.max_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
        "min_p": sampling.min_p,
        "presence_penalty": sampling.presence_penalty,
        "frequency_penalty": sampling.frequency_penalty,
        "repetition_penalty": sampling.repetition_penalty,
        "seed": sampling.seed,
        "min_tokens": sampling.min_tokens,
        "stop_token_ids": list(sampling.stop_token_ids),
        "ignore_eos": sampling.ignore_eos,
        "logprobs": sampling.logprobs,
        "logit_bias": {str(token): bias for token, bias in sampling.logit_bias.items()} or None,
        "structured_outputs": grammar and {grammar.kind: _rule(grammar)},
        "stream_interval": sampling.chunk_tokens,
    }


def _rule(grammar: Grammar) -> Any:
    return json.loads(grammar.rule) if grammar.kind == "choice" else grammar.rule


def _salted(request: EngineRequest, name: str) -> dict[str, str]:
    salt = request.sampling.cache_salt
    return {} if salt is None else {name: salt}


def _generate_body(request: EngineRequest, model: str) -> dict[str, Any]:
    return {
        "model": model,
        "request_id": request.id,
        "token_ids": list(request.prompt),
        "sampling_params": {**_vllm(request.sampling), "detokenize": False},
        "stream": True,
        "stream_options": {"include_usage": True},
        **_salted(request, "cache_salt"),
    }


def _generate_piece(event: Event, _: int) -> Piece:
    if not event["choices"]:
        return Piece(cached=_cached(event))
    (choice,) = event["choices"]
    logprobs = None
    if told := choice.get("logprobs"):
        logprobs = [
            TokenLogprob(
                entry["token_id"],
                entry["logprob"],
                tuple((other["token_id"], other["logprob"]) for other in entry["top_logprobs"]),
            )
            for entry in told["content"]
        ]
    return Piece(choice["token_ids"], _finish(choice["finish_reason"]), logprobs)


def _completions_body(request: EngineRequest, model: str) -> dict[str, Any]:
    return {
        "model": model,
        "request_id": request.id,
        "prompt": list(request.prompt),
        **_vllm(request.sampling),
        "stream": True,
        "stream_options": {"include_usage": True},
        "return_token_ids": True,
        "return_tokens_as_token_ids": True,  # texts of different tokens may be the same
        "skip_special_tokens": False,
        **_salted(request, "cache_salt"),
    }


def _completions_piece(event: Event, _: int) -> Piece:
    if not event["choices"]:
        return Piece(cached=_cached(event))
    (choice,) = event["choices"]
    logprobs = None
    if told := choice.get("logprobs"):
        tops = told["top_logprobs"] or [None] * len(told["tokens"])
        logprobs = [
            TokenLogprob(
                _token_id(token), logprob, tuple((_token_id(t), p) for t, p in (top or {}).items())
            )
            for token, logprob, top in zip(
                told["tokens"], told["token_logprobs"], tops, strict=True
            )
        ]
    return Piece(choice["token_ids"] or (), _finish(choice["finish_reason"]), logprobs)


def _token_id(token: str) -> int:
    return int(token.removeprefix("token_id:"))


def _cached(event: Event) -> int | None:
    details = (event.get("usage") or {}).get("prompt_tokens_details") or {}
    cached: int | None = details.get("cached_tokens")
    return cached


_SGLANG_GRAMMARS = {
    "json": "json_schema",
    "regex": "regex",
    "grammar": "ebnf",
    "structural_tag": "structural_tag",
}


def _sglang_body(request: EngineRequest, _: str) -> dict[str, Any]:
    sampling = request.sampling
    rules: dict[str, Any] = {
        "max_new_tokens": sampling.max_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k or -1,
        "min_p": sampling.min_p,
        "presence_penalty": sampling.presence_penalty,
        "frequency_penalty": sampling.frequency_penalty,
        "repetition_penalty": sampling.repetition_penalty,
        "sampling_seed": sampling.seed,
        "min_new_tokens": sampling.min_tokens,
        "stop_token_ids": list(sampling.stop_token_ids),
        "ignore_eos": sampling.ignore_eos,
        "logit_bias": {str(token): bias for token, bias in sampling.logit_bias.items()} or None,
        "stream_interval": sampling.chunk_tokens,
        "skip_special_tokens": False,
        "no_stop_trim": True,
    }
    if (grammar := sampling.grammar) is not None:
        if grammar.kind == "choice":
            rules["regex"] = "|".join(re.escape(text) for text in json.loads(grammar.rule))
        else:
            rules[_SGLANG_GRAMMARS[grammar.kind]] = grammar.rule
    return {
        # Aborts match the beginning of an id: the slash keeps this id from matching another one.
        "rid": f"{request.id}/",
        "input_ids": list(request.prompt),
        "sampling_params": rules,
        "stream": True,
        "return_logprob": sampling.logprobs is not None,
        "top_logprobs_num": sampling.logprobs or 0,
        **_salted(request, "extra_key"),
    }


def _sglang_piece(event: Event, before: int) -> Piece:
    """The lists hold all tokens so far, or only the new ones (--incremental-streaming-output):
    either way the new ones are last.
    """
    about = event["meta_info"]
    new = about["completion_tokens"] - before
    ids = event["output_ids"]
    finish = about["finish_reason"]
    if finish is not None and finish["type"] not in _FINISHES:
        raise Interrupted(
            "failed",
            f"the server ended the request with {finish.get('message') or finish['type']!r}",
        )
    logprobs = None
    if (told := about.get("output_token_logprobs")) is not None:
        tops = about.get("output_top_logprobs") or [()] * len(told)
        logprobs = [
            TokenLogprob(token_id, logprob, tuple((t, p) for p, t, *_ in top or ()))
            for (logprob, token_id, *_), top in zip(_last(told, new), _last(tops, new), strict=True)
        ]
    return Piece(_last(ids, new), finish and finish["type"], logprobs, about.get("cached_tokens"))


def _last(values: Sequence[Any], count: int) -> Sequence[Any]:
    if not 0 <= count <= len(values):
        raise ValueError(f"the server reports {count} new tokens with {len(values)} ids")
    return values[len(values) - count :]


DIALECTS: Mapping[str, Dialect] = {
    "generate": Dialect(
        "/inference/v1/generate", _generate_body, _generate_piece, "vLLM, by token ids"
    ),
    "completions": Dialect(
        "/v1/completions", _completions_body, _completions_piece, "vLLM, by its completions"
    ),
    "sglang": Dialect("/generate", _sglang_body, _sglang_piece, "SGLang", abort="/abort_request"),
}
"""Dialects by name, in the order in which the probe tries them."""
