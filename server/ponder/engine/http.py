"""Inference servers over HTTP: one, or a router before many. Token ids go in, token ids come out.

    ponder serve MODEL --engine http -- http://127.0.0.1:8001

Balancing is the router's work. All requests of one thought carry one session (`X-Session-ID`), by
which a router finds the server whose prefix cache has the thought. Where a server is lost in the
middle of a stream, another one continues the request from the tokens received so far.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import math
import os
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, Coroutine, Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import replace
from importlib.util import find_spec
from typing import NoReturn

import aiohttp
import orjson
from prometheus_client import Counter

from ponder.engine import grammars
from ponder.engine.harmony_calls import Harmony
from ponder.engine.hermes import Hermes
from ponder.engine.http_dialects import DIALECTS, Finish, Piece
from ponder.engine.http_probe import Found, probe
from ponder.engine.http_wire import CAUSES, Interrupted, in_band, lines, refusal
from ponder.engine.protocol import (
    Calling,
    Chunk,
    EngineError,
    EngineFacts,
    EngineOverloadedError,
    EngineRequest,
    EngineSetupError,
    Load,
    RequestRefusedError,
    TokenLogprob,
)
from ponder.engine.pulse import Pulse
from ponder.environment.urls import without_password

logger = logging.getLogger("ponder")  # the log that operators read
RESUMES = Counter(
    "ponder_engine_resumes_total",
    "Engine requests that another server continued, by what was wrong with the first one",
    ["cause"],
)
for _cause in CAUSES:  # zeros: without them Prometheus misses the first increase
    RESUMES.labels(_cause)
_RESUMES = 4  # of a request: one that kills every server it reaches must not kill them all
_PAUSE_SECONDS = 0.25  # before the next try, where a server gave nothing; doubled each time
_IDLE_SECONDS = 3  # of a connection: uvicorn, which vLLM serves with, closes it after 5
_MOVED = 10_000  # thoughts that changed their server, remembered at most


class HttpEngine:
    """Sends requests to a server's streaming route; closing a stream aborts its request there."""

    def __init__(
        self,
        url: str,
        found: Found,
        eos_token_ids: frozenset[int],
        *,
        headers: Mapping[str, str] | None = None,
        calling: Calling | None = None,
        stall_timeout: float | None = None,
    ) -> None:
        self.facts = EngineFacts(
            max_model_len=found.max_model_len,
            max_logprobs=found.max_logprobs,
            check=grammars.check,  # the server checks the rest when the answer begins
            calling=calling,
        )
        self._url = url
        self._shown = without_password(url)
        self._found = found
        self._dialect = found.dialect
        self._eos_token_ids = eos_token_ids
        self._stall_timeout = stall_timeout
        self._headers = {"content-type": "application/json", **(headers or {})}
        self._session: aiohttp.ClientSession | None = None
        self._running: set[str] = set()
        self._moves: OrderedDict[str, int] = OrderedDict()  # affinity → times it was resumed
        self._tasks: set[asyncio.Task[None]] = set()
        self._pulse = Pulse()

    async def generate(self, request: EngineRequest) -> AsyncGenerator[Chunk, None]:
        self._admit(request)
        self._running.add(request.id)
        self._pulse.begin()
        held: list[int] = []
        asked, resumes = request, 0
        try:
            while True:
                begun = len(held)
                try:
                    async with aclosing(self._stream(asked)) as stream:
                        async for chunk in stream:
                            self._pulse.beat()
                            held += chunk.token_ids
                            yield replace(chunk, cached_tokens=None) if resumes else chunk
                    return
                except Interrupted as error:
                    if (finish := self._ended(request, held)) is not None:
                        yield Chunk((), finish)
                        return
                    if resumes == _RESUMES:
                        raise self._failure(error, held) from error
                    asked = self._again(request, held, f"{asked.id}~", error)
                    resumes += 1
                    RESUMES.labels(error.cause).inc()
                    logger.warning(
                        "the engine request %s is entered again with %d tokens: %s",
                        *(request.id, len(held), error),
                    )
                    if len(held) == begun:
                        await asyncio.sleep(_PAUSE_SECONDS * 2 ** (resumes - 1))
        finally:
            self._running.discard(request.id)
            self._pulse.end()

    def unfinished(self) -> int:
        return len(self._running)

    def silence(self) -> float:
        return self._pulse.silence()

    async def check_health(self) -> None:
        """Raises `EngineOverloadedError` while no server takes requests; one may come back."""
        path, timeout = self._found.health, aiohttp.ClientTimeout(total=10)
        try:
            async with self._client().get(self._url + path, timeout=timeout) as reply:
                status = reply.status
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise EngineOverloadedError(
                f"no server answers at {self._shown} ({error!r})"
            ) from error
        if status != 200:
            raise EngineOverloadedError(
                f"no server takes requests: {self._shown}{path} says {status}"
            )

    def shutdown(self) -> None:
        """Close the connections, in the loop's next turn. The servers run on."""
        for task in self._tasks:
            task.cancel()
        if self._session is not None:
            self._start(self._session.close())
            self._session = None

    def _client(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_IDLE_SECONDS),
                timeout=aiohttp.ClientTimeout(
                    total=None, sock_connect=10, sock_read=self._stall_timeout
                ),
                headers=self._headers,
                # A balancer's cookie would lead every thought to one server.
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        return self._session

    def _admit(self, request: EngineRequest) -> None:
        """Refuse what servers do not: they silently truncate, and may run one id twice."""
        most, asked = self.facts.max_model_len, request.sampling.max_tokens
        if asked < 1:
            raise RequestRefusedError(f"max_tokens must be at least 1, not {asked}")
        if len(request.prompt) + asked > most:
            raise RequestRefusedError(
                f"{len(request.prompt)} prompt tokens and max_tokens {asked} do not fit in {most}"
            )
        if request.id in self._running:
            raise EngineError(f"request {request.id!r} is already running")

    def _again(
        self, request: EngineRequest, held: Sequence[int], name: str, error: Interrupted
    ) -> EngineRequest:
        """The rest of a request, for another server. Raises if none can continue it."""
        sampling, done = request.sampling, len(held)
        if held and sampling.seed is not None and sampling.temperature > 0:
            raise EngineError(
                f"a server was lost after {done} tokens of a seeded request ({error}), and no "
                f"other server can continue its seed: send the request again"
            ) from error
        if held and sampling.grammar is not None:
            raise EngineError(
                f"a server was lost after {done} tokens that follow a grammar ({error}), and no "
                f"other server can continue inside the grammar: send the request again"
            ) from error
        affinity = request.affinity or request.id
        self._moves[affinity] = self._moves.pop(affinity, 0) + 1
        if len(self._moves) > _MOVED:
            self._moves.popitem(last=False)
        return replace(
            request,
            id=name,
            prompt=[*request.prompt, *held],
            sampling=replace(
                sampling,
                max_tokens=sampling.max_tokens - done,
                min_tokens=max(0, sampling.min_tokens - done),
            ),
        )

    def _ended(self, request: EngineRequest, held: Sequence[int]) -> Finish | None:
        """How a request ended, if all its tokens arrived although its server did not say so."""
        sampling = request.sampling
        stops = set(sampling.stop_token_ids)
        if not sampling.ignore_eos:
            stops |= self._eos_token_ids
        if held and held[-1] in stops and len(held) > sampling.min_tokens:
            return "stop"
        return "length" if len(held) >= sampling.max_tokens else None

    def _failure(self, error: Interrupted, held: Sequence[int]) -> EngineError:
        """The error for a request that no server finished."""
        if error.cause == "overloaded" or (error.cause == "lost" and not held):
            return EngineOverloadedError(f"no server takes this request at the moment: {error}")
        return EngineError(f"none of {_RESUMES + 1} servers finished this request: {error}")

    async def _stream(self, request: EngineRequest) -> AsyncGenerator[Chunk, None]:
        """One try. The last chunk waits for the server's report of cached tokens."""
        body = self._dialect.body(_widened(request, self.facts), self._found.model)
        wanted, seen = request.sampling.logprobs, 0
        last: Chunk | None = None
        cached: int | None = None
        reply: aiohttp.ClientResponse | None = None
        try:
            reply = await self._client().post(
                self._url + self._dialect.path,
                data=orjson.dumps(body),
                headers=self._told(request),
            )
            if reply.status != 200:
                raise refusal(reply.status, await reply.text(errors="replace"))
            async for line in lines(reply.content):
                piece = self._piece(line, seen)
                seen += len(piece.token_ids)
                cached = piece.cached if piece.cached is not None else cached
                if last is not None or not (piece.token_ids or piece.finish):
                    continue
                logprobs = None if wanted is None else _narrowed(piece.logprobs or (), wanted)
                chunk = Chunk(piece.token_ids, piece.finish, logprobs, piece.cached)
                if piece.finish is None:
                    yield chunk
                else:
                    last = chunk
            if last is None:
                raise Interrupted("lost", "the stream ended before its request did")
            reply.release()
            reply = None
        except (aiohttp.ClientError, OSError) as error:
            if last is None:
                raise Interrupted("lost", f"the connection was lost ({error!r})") from error
        finally:
            if reply is not None:
                reply.close()  # which aborts the request
                if last is None and self._dialect.abort is not None:
                    self._start(self._abort(body["rid"]))
        yield replace(last, cached_tokens=cached)

    def _piece(self, line: bytes, seen: int) -> Piece:
        try:
            event = orjson.loads(line)
            if error := event.get("error"):
                raise in_band(error)
            return self._dialect.parse(event, seen)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise EngineError(f"the server sent an event that cannot be read: {error!r}") from error

    def _told(self, request: EngineRequest) -> dict[str, str]:
        """Headers that name the request's tenant, and the session of the requests before it."""
        affinity, origin = request.affinity or request.id, request.origin
        moved = self._moves.get(affinity)
        headers = {
            "X-Request-Id": request.id,
            "X-Session-ID": f"{affinity}~{moved}" if moved else affinity,
            **origin.trace,
        }
        if origin.tenant:
            headers["x-llm-d-inference-fairness-id"] = origin.tenant
        if origin.due_at is not None:
            left = math.ceil(1000 * (origin.due_at - time.perf_counter()))
            headers["x-llm-d-slo-ttft-ms"] = str(max(1, left))
        return headers

    def _start(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _abort(self, rid: str) -> None:
        """Abort a request, on a server that would notice too late that its client has left."""
        with suppress(aiohttp.ClientError, OSError):  # then it notices later
            path = f"{self._url}{self._dialect.abort}"
            async with self._client().post(path, data=orjson.dumps({"rid": rid})):
                pass


def _widened(request: EngineRequest, facts: EngineFacts) -> EngineRequest:
    """Ask for one more alternative: servers count the sampled token among them."""
    wanted = request.sampling.logprobs
    if not wanted:
        return request
    most = facts.max_logprobs
    sampling = replace(
        request.sampling, logprobs=wanted + 1 if most is None else min(wanted + 1, most)
    )
    return replace(request, sampling=sampling)


def _narrowed(entries: Sequence[TokenLogprob], wanted: int) -> list[TokenLogprob]:
    """The `wanted` best alternatives, and the sampled token if it is not among them."""
    narrowed = []
    for entry in entries:
        top = sorted(entry.top, key=lambda item: -item[1])
        best = top[:wanted] + [item for item in top[wanted:] if item[0] == entry.token_id]
        narrowed.append(replace(entry, top=tuple(best)))
    return narrowed


def load(load: Load) -> HttpEngine:
    """The engine of the server whose address follows `--`. Raises `EngineSetupError`."""
    url, dialect = _options(load.options)
    key = os.environ.get("VLLM_API_KEY")
    headers = {"authorization": f"Bearer {key}"} if key else {}
    found = probe(load, url, headers, dialect)
    for line in found.lines(url):
        logger.info("%s", line)
    return HttpEngine(
        url,
        found,
        load.vocabulary.eos_token_ids,
        headers=headers,
        calling=_calling(load),
        stall_timeout=load.stall_timeout,
    )


def _options(options: Sequence[str]) -> tuple[str, str | None]:
    """The server's address without a slash at its end, and the dialect where one is named."""

    class Parser(argparse.ArgumentParser):
        def error(self, message: str) -> NoReturn:
            raise EngineSetupError(
                f"after `--`, {message}: give the address of an inference server, as in `ponder "
                f"serve MODEL --engine http -- http://127.0.0.1:8001`"
            )

    parser = Parser(prog="ponder serve MODEL --engine http --", description=__doc__)
    parser.add_argument("url", metavar="URL", help="of vLLM, SGLang or a router before them")
    parser.add_argument(
        "--dialect", choices=list(DIALECTS), help="the API to use (default: the first that works)"
    )
    parsed = parser.parse_args(list(options))
    url = parsed.url if "://" in parsed.url else f"http://{parsed.url}"
    if not url.startswith(("http://", "https://")):
        parser.error(f"{parsed.url} is no address of a web server")
    return url.rstrip("/").removesuffix("/v1"), parsed.dialect


def _calling(load: Load) -> Calling | None:
    """The parser of the model's calls: vLLM's where it is installed, unless it is ours."""
    if load.calls is None:
        return None
    if load.calls == "hermes":
        return Hermes()
    if load.calls == Harmony.name:
        return Harmony(load.vocabulary)
    if find_spec("vllm") is not None:
        from ponder.engine.vllm import calling

        return calling(load)
    remedy = f"only vLLM's parsers read calls in the syntax {load.calls}: install vllm here too"
    if load.calls_needed:
        raise EngineSetupError(remedy)
    logger.warning("tools are refused: %s", remedy)
    return None
