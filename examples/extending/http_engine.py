"""An engine that speaks HTTP to a stock vLLM server: token ids go in, token ids come out.

Run it from this folder, beside `vllm serve MODEL --port 8001`:

    ponder serve MODEL --engine http_engine -- http://127.0.0.1:8001
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from dataclasses import asdict
from typing import Any

import httpx

from ponder.engine.protocol import (
    Chunk,
    EngineDeadError,
    EngineError,
    EngineFacts,
    EngineRequest,
    EngineSetupError,
    Load,
    RequestRefusedError,
    TokenLogprob,
)
from ponder.engine.pulse import Pulse


class HttpEngine:
    """Requests become requests to `/v1/completions`; closing a stream aborts its request there."""

    def __init__(self, url: str, model: str, facts: EngineFacts) -> None:
        self.facts = facts
        self._model = model
        self._client = httpx.AsyncClient(base_url=url, timeout=httpx.Timeout(10, read=None))
        self._pulse = Pulse()
        self._unfinished = 0

    async def generate(self, request: EngineRequest) -> AsyncGenerator[Chunk, None]:
        body = self._body(request)
        self._unfinished += 1
        self._pulse.begin()
        try:
            async with self._client.stream("POST", "/v1/completions", json=body) as reply:
                if reply.status_code != 200:
                    said = (await reply.aread()).decode(errors="replace")
                    kind = RequestRefusedError if reply.status_code == 400 else EngineError
                    raise kind(f"the vLLM server answered {reply.status_code}: {said}")
                async for line in reply.aiter_lines():
                    if line.startswith("data: {"):
                        self._pulse.beat()
                        yield _chunk(json.loads(line[len("data: ") :]), request)
        except httpx.TransportError as error:
            raise EngineError(f"the vLLM server was lost: {error!r}") from error
        finally:
            self._unfinished -= 1
            self._pulse.end()

    def unfinished(self) -> int:
        return self._unfinished

    def silence(self) -> float:
        return self._pulse.silence()

    async def check_health(self) -> None:
        try:
            (await self._client.get("/health")).raise_for_status()
        except httpx.HTTPError as error:
            raise EngineDeadError(f"the vLLM server is gone: {error!r}") from error

    def shutdown(self) -> None:
        """The server is somebody else's: it lives on."""

    def _body(self, request: EngineRequest) -> dict[str, Any]:
        """Ponder's rules have vLLM's names; what only a process knows is left out."""
        rules = asdict(request.sampling)
        for name in ("chunk_tokens", "grammar", "prompt_logprobs"):  # `facts` promise no more
            del rules[name]
        if not rules["logit_bias"]:
            del rules["logit_bias"]
        return {
            "model": self._model,
            "prompt": list(request.prompt),
            "request_id": request.id,
            "stream": True,
            "return_token_ids": True,
            "return_tokens_as_token_ids": True,
            **rules,
        }


def _chunk(event: dict[str, Any], request: EngineRequest) -> Chunk:
    """One server-sent event of `/v1/completions`."""
    if "error" in event:
        raise EngineError(f"the vLLM server failed the request: {event['error']}")
    (choice,) = event["choices"]
    logprobs = None
    if request.sampling.logprobs is not None and (found := choice["logprobs"]):
        entries = zip(found["tokens"], found["token_logprobs"], found["top_logprobs"], strict=True)
        logprobs = [
            TokenLogprob(_id(token), logprob, tuple((_id(t), p) for t, p in (top or {}).items()))
            for token, logprob, top in entries
        ]
    return Chunk(choice["token_ids"] or [], choice["finish_reason"], logprobs)


def _id(token: str) -> int:
    return int(token.removeprefix("token_id:"))


def load(load: Load) -> HttpEngine:
    """The engine of the server whose address follows `--`."""
    if len(load.options) != 1:
        raise EngineSetupError("give the address of the vLLM server after `--`")
    (url,) = load.options
    try:
        (card,) = httpx.get(f"{url}/v1/models").raise_for_status().json()["data"]
    except httpx.HTTPError as error:
        raise EngineSetupError(f"no vLLM server answers at {url} ({error!r})") from error
    return HttpEngine(url, card["id"], EngineFacts(max_model_len=card["max_model_len"]))
