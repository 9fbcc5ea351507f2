"""What the routes share: one model on one engine, who may use it and how much at once."""

from __future__ import annotations

import asyncio
import hmac
import logging
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

from ponder.engine.base import Engine, EngineDeadError
from ponder.protocol.conversation import read_conversation
from ponder.protocol.errors import NO_RETRY, ApiError, invalid_request
from ponder.protocol.request import ChatCompletionRequest
from ponder.protocol.response import ChatCompletion
from ponder.server.completion import Completion, StreamedReply, WholeReply
from ponder.server.metrics import Metrics
from ponder.server.model import ServedModel
from ponder.server.settings import Settings
from ponder.thought.budget import UNLIMITED, Limits
from ponder.thought.holdout import Holdout

logger = logging.getLogger(__name__)
HEALTH_CHECK_SECONDS = 1.0


class Service:
    """State of one server process. `draining` and `dead` are one-way."""

    def __init__(self, settings: Settings, model: ServedModel, engine: Engine) -> None:
        self.settings = settings
        self.model = model
        self.engine = engine
        self.limits = Limits(
            max_model_len=engine.max_model_len,
            default=settings.default_budget,
            ceiling=settings.budget_ceiling,
        )
        key = settings.holdout_key
        self.holdout = Holdout(
            settings.holdout, key.get_secret_value().encode() if key else secrets.token_bytes(32)
        )
        self.metrics = Metrics(model.name, running=lambda: self.running)
        self.running = 0
        self.draining = False
        self.dead = False

    @property
    def ready(self) -> bool:
        return not (self.draining or self.dead)

    def authorise(self, header: str | None) -> None:
        """Raise 401 unless the header carries one of the keys, compared in constant time."""
        keys = [key.get_secret_value() for key in self.settings.api_key]
        if not keys:
            return
        scheme, _, given = (header or "").partition(" ")
        matches = [hmac.compare_digest(given.encode(), key.encode()) for key in keys]
        if scheme.lower() != "bearer" or not any(matches):
            raise ApiError(
                401,
                "invalid_api_key",
                "this server wants an API key: send it as `Authorization: Bearer KEY`",
                headers={"www-authenticate": "Bearer"},
            )

    def complete(
        self, request: ChatCompletionRequest, conversation: str | None = None
    ) -> Completion:
        """Plan a request. Raises everything the request itself is at fault for.

        `conversation` is what a header says of it. A held-out conversation keeps the ceilings and
        what the client asks for, and goes without what the operator does to save.
        """
        if request.model is not None and request.model != self.model.name:
            raise ApiError(
                404,
                "model_not_found",
                f"the model {request.model!r} is not served here: ask for {self.model.name!r}",
                param="model",
            )
        name = read_conversation(request, conversation) or f"request:{secrets.token_hex(16)}"
        assignment = self.holdout.assign(name)
        limits = self.limits
        if assignment.arm == "holdout" and request.ponder.holdout != "never":
            limits = replace(limits, default=UNLIMITED)
        return Completion(request, self.model, self.engine, limits, assignment)

    async def whole(self, completion: Completion) -> ChatCompletion:
        """Run a completion and return it whole."""
        reply = WholeReply(completion)
        async with self._place(completion.request.n):
            await completion.run(reply.emit)
        self.metrics.completed(completion)
        return reply.response()

    async def streamed(self, completion: Completion, put: Callable[[bytes], None]) -> None:
        """Run a completion and put its events as they come."""
        reply = StreamedReply(completion)
        async with self._place(completion.request.n):
            await completion.run(lambda index, delta: put(reply.event(index, delta)))
        self.metrics.completed(completion)
        put(reply.closing())

    @asynccontextmanager
    async def _place(self, choices: int) -> AsyncIterator[None]:
        """Hold a place for each choice, for as long as a request may take.

        Raises 503 rather than queue without bound, and 504 when the time is up.
        """
        self._admit(choices)
        self.running += choices
        try:
            async with asyncio.timeout(self.settings.request_timeout):
                yield
        except TimeoutError as error:
            raise ApiError(
                504,
                "deadline_exceeded",
                f"the request took longer than {self.settings.request_timeout:g} seconds "
                f"(--request-timeout): ask for fewer tokens",
                headers=NO_RETRY,
            ) from error
        finally:
            self.running -= choices

    def _admit(self, choices: int) -> None:
        if self.dead:
            raise EngineDeadError("the engine died; this server is about to exit")
        if self.draining:
            raise ApiError(
                503,
                "draining",
                "this server is shutting down: send the request to another one",
                headers={"retry-after": "1"},
            )
        if choices > self.settings.max_running:
            raise invalid_request(
                f"n is {choices}, but this server generates at most "
                f"{self.settings.max_running} choices at once (--max-running): lower n",
                "n",
            )
        if self.running + choices > self.settings.max_running:
            raise ApiError(
                503,
                "overloaded",
                f"{self.running} choices are being generated and at most "
                f"{self.settings.max_running} may be (--max-running): try again in a moment",
                headers={"retry-after": "1"},
            )

    async def watch_engine(self) -> None:
        """Return once the engine is dead; until then ask it every second."""
        while True:
            try:
                await self.engine.check_health()
            except EngineDeadError as error:
                logger.critical("%s", error)
                self.dead = True
                return
            await asyncio.sleep(HEALTH_CHECK_SECONDS)
