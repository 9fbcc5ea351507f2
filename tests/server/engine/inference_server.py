"""A server that speaks as vLLM and SGLang do, before a scripted engine, with faults on demand."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from ponder.engine.http import HttpEngine
from ponder.engine.http_dialects import DIALECTS
from ponder.engine.http_probe import Found
from ponder.engine.protocol import (
    Chunk,
    EngineError,
    EngineRequest,
    Grammar,
    Sampling,
    TokenLogprob,
)
from ponder.engine.scripted import ScriptedEngine


@dataclass(frozen=True)
class Fault:
    """What happens to a request once `after` tokens were sent.

    `drop` closes the connection, `done` ends the stream as if all were well, `abort` ends the
    request with that reason, `status` and `error` answer with one: the first instead of a stream,
    the second inside it; `page` answers as a proxy's page that is no UTF-8. `babble` says what
    nobody understands, `late` closes the connection behind the last token, and `hang` says nothing
    more for as long as somebody listens.
    """

    kind: str
    after: int = 0
    code: int = 503


@dataclass
class InferenceServer:
    """Serves `engine` in the words of `dialect`; `faults` are those of the next requests."""

    engine: ScriptedEngine
    dialect: str
    encode: Any
    incremental: bool = False
    faults: list[Fault | None] = field(default_factory=list)
    routes: Sequence[str] = tuple(DIALECTS)
    deaf: Sequence[str] = ()  # fields that it takes in silence and does not heed
    tokenizes: bool = True
    healthy: bool = True
    key: str | None = None
    card: dict[str, Any] = field(
        default_factory=lambda: {"id": "tiny", "root": "tiny", "max_model_len": 4096}
    )
    url: str = ""
    asked: list[tuple[Mapping[str, str], dict[str, Any]]] = field(default_factory=list)
    aborted: list[str] = field(default_factory=list)
    _running: dict[str, asyncio.Task[None]] = field(default_factory=dict)

    def app(self) -> web.Application:
        app = web.Application()
        for name in self.routes:
            app.router.add_post(DIALECTS[name].path, self._generate)
        app.router.add_post("/abort_request", self._abort)
        app.router.add_get("/v1/models", self._models)
        app.router.add_get("/health", self._health)
        if self.tokenizes:
            app.router.add_post("/tokenize", self._tokenize)
        return app

    async def _models(self, request: web.Request) -> web.Response:
        if self.key and request.headers.get("authorization") != f"Bearer {self.key}":
            return web.json_response({"error": "Unauthorized"}, status=401)
        return web.json_response({"data": [self.card]})

    async def _health(self, _: web.Request) -> web.Response:
        return web.Response(status=200 if self.healthy else 503)

    async def _tokenize(self, request: web.Request) -> web.Response:
        return web.json_response({"tokens": self.encode((await request.json())["prompt"])})

    async def _abort(self, request: web.Request) -> web.Response:
        rid = (await request.json())["rid"]
        self.aborted.append(rid)
        for name, task in self._running.items():
            if name.startswith(rid):
                task.cancel()
        return web.Response()

    async def _generate(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        if isinstance(body.get("prompt"), str):
            return web.json_response({"error": "no tokenizer"}, status=400)
        self.asked.append((request.headers, body))
        fault = self.faults.pop(0) if self.faults else None
        if fault is not None and fault.kind == "status":
            error = {"error": {"message": "no", "param": "temperature", "code": fault.code}}
            return web.json_response(error, status=fault.code)
        if fault is not None and fault.kind == "page":
            return web.Response(status=fault.code, body="Zeitüberschreitung".encode("latin-1"))
        reply = web.StreamResponse(headers={"content-type": "text/event-stream"})
        reply.set_cookie("backend", "server-1")
        await reply.prepare(request)
        if self.dialect == "sglang":  # it does not notice that its client leaves
            asked = self._read(body)
            task = self._running[asked.id] = asyncio.create_task(self._play(reply, body, fault))
            await asyncio.wait([task])
            del self._running[asked.id]
        else:
            await self._play(reply, body, fault)
        return reply

    async def _play(
        self, reply: web.StreamResponse, body: dict[str, Any], fault: Fault | None
    ) -> None:
        asked, sent = self._read(body), list[int]()
        logprobs = list[TokenLogprob]()
        try:
            async with aclosing(self.engine.generate(asked)) as stream:
                async for chunk in stream:
                    if fault is not None and fault.kind != "late" and len(sent) >= fault.after:
                        await self._fail(reply, fault)
                        return
                    sent += chunk.token_ids
                    logprobs += chunk.logprobs or ()
                    await self._send(reply, self._event(chunk, sent, logprobs))
                    if fault is not None and fault.kind == "late" and len(sent) >= fault.after:
                        await self._fail(reply, Fault("drop"))
                        return
        except EngineError as error:
            await self._send(reply, {"error": {"message": str(error), "code": 400}})
        if self.dialect != "sglang":
            details = {"prompt_tokens_details": {"cached_tokens": len(asked.prompt) // 2}}
            await self._send(reply, {"choices": [], "usage": details})
        await reply.write(b"data: [DONE]\n\n")

    async def _fail(self, reply: web.StreamResponse, fault: Fault) -> None:
        if fault.kind == "drop":
            assert reply._req is not None and reply._req.transport is not None
            reply._req.transport.abort()
            return
        if fault.kind == "hang":
            while reply._req is not None and reply._req.transport is not None:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            return
        if fault.kind == "error":
            await self._send(reply, {"error": {"message": "full", "code": fault.code}})
        if fault.kind == "babble":
            await self._send(reply, {"choices": 7})
        if fault.kind == "abort" and self.dialect == "sglang":
            about = {"finish_reason": {"type": "abort", "message": "bye"}, "completion_tokens": 0}
            await self._send(reply, {"output_ids": [], "meta_info": about})
        elif fault.kind == "abort":
            choice = {"token_ids": [], "finish_reason": "abort", "logprobs": None}
            await self._send(reply, {"choices": [choice]})
        await reply.write(b"data: [DONE]\n\n")

    async def _send(self, reply: web.StreamResponse, event: dict[str, Any]) -> None:
        event = {"text": "no\u2028end\x85of a line", **event}  # JSON may hold both as they are
        await reply.write(b"data: " + json.dumps(event, ensure_ascii=False).encode() + b"\n\n")

    def _read(self, body: dict[str, Any]) -> EngineRequest:
        body = {name: value for name, value in body.items() if name not in self.deaf}
        if self.dialect == "sglang":
            rules = body["sampling_params"]
            prompt, name, most = body["input_ids"], body["rid"], rules["max_new_tokens"]
            least, salt = rules["min_new_tokens"], body.get("extra_key")
            told = body["top_logprobs_num"] if body["return_logprob"] else None
            seed, grammar = rules["sampling_seed"], None
        else:
            rules = body["sampling_params"] if self.dialect == "generate" else body
            prompt = body["token_ids" if self.dialect == "generate" else "prompt"]
            name, most, least = body["request_id"], rules["max_tokens"], rules["min_tokens"]
            told, seed, salt = rules["logprobs"], rules["seed"], body.get("cache_salt")
            found = rules["structured_outputs"]
            grammar = found and Grammar(*next(iter(found.items())))
        sampling = Sampling(
            max_tokens=most,
            temperature=rules["temperature"],
            seed=seed,
            min_tokens=least,
            stop_token_ids=tuple(rules["stop_token_ids"]),
            ignore_eos=rules["ignore_eos"],
            logprobs=told,
            logit_bias={int(t): bias for t, bias in (rules["logit_bias"] or {}).items()},
            chunk_tokens=rules.get("stream_interval", 1),
            grammar=grammar,
            cache_salt=salt,
        )
        return EngineRequest(prompt, sampling, name)

    def _event(
        self, chunk: Chunk, sent: Sequence[int], logprobs: Sequence[TokenLogprob]
    ) -> dict[str, Any]:
        if self.dialect == "sglang":
            new = len(chunk.token_ids) if self.incremental else len(sent)
            about: dict[str, Any] = {
                "completion_tokens": len(sent),
                "finish_reason": chunk.finish and {"type": chunk.finish},
                "cached_tokens": 3,
            }
            if logprobs:
                told = logprobs[-new:]
                about["output_token_logprobs"] = [(e.logprob, e.token_id, None) for e in told]
                about["output_top_logprobs"] = [[(p, t, None) for t, p in e.top] for e in told]
            return {"output_ids": sent[-new:], "meta_info": about}
        ids: Any = None if "return_token_ids" in self.deaf else list(chunk.token_ids)
        choice = {"token_ids": ids, "finish_reason": chunk.finish, "logprobs": None}
        if chunk.logprobs and self.dialect == "generate":
            choice["logprobs"] = {
                "content": [
                    {
                        "token_id": entry.token_id,
                        "logprob": entry.logprob,
                        "top_logprobs": [{"token_id": t, "logprob": p} for t, p in entry.top],
                    }
                    for entry in chunk.logprobs
                ]
            }
        elif chunk.logprobs:
            choice["logprobs"] = {
                "tokens": [f"token_id:{entry.token_id}" for entry in chunk.logprobs],
                "token_logprobs": [entry.logprob for entry in chunk.logprobs],
                "top_logprobs": [
                    {f"token_id:{t}": p for t, p in entry.top} for entry in chunk.logprobs
                ],
            }
        return {"choices": [choice], "usage": None}


def found(dialect: str, max_model_len: int = 4096) -> Found:
    return Found(
        name=dialect,
        dialect=DIALECTS[dialect],
        model="tiny",
        max_model_len=max_model_len,
        max_logprobs=20,
        health="/health",
        chunks=True,
        cached=True,
        compared=True,
    )


@asynccontextmanager
async def started(server: InferenceServer) -> AsyncIterator[InferenceServer]:
    runner = web.AppRunner(
        server.app(), handler_cancellation=server.dialect != "sglang", shutdown_timeout=0.1
    )
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    server.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield server
    finally:
        await runner.cleanup()


@asynccontextmanager
async def asking(
    server: InferenceServer, eos: frozenset[int], stall_timeout: float | None = None
) -> AsyncIterator[HttpEngine]:
    async with started(server):
        facts = found(server.dialect, server.engine.facts.max_model_len)
        engine = HttpEngine(server.url, facts, eos, stall_timeout=stall_timeout)
        try:
            yield engine
        finally:
            engine.shutdown()
            await asyncio.sleep(0)  # transports close in the loop
