"""`Ponder` and `AsyncPonder`: the same client twice, side by side."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any, Literal, Self, TypeVar, Unpack, overload
from urllib.parse import quote

import httpx
from pydantic import BaseModel, ValidationError

from ponder import environment
from ponder.client.address import server_root, transport_errors
from ponder.client.errors import PonderAPIError, error_of_response
from ponder.client.request import Budget, ChatOptions, Messages, chat_body, naming
from ponder.client.retry import MAX_RETRIES, pause
from ponder.client.stream import AsyncChatStream, ChatStream
from ponder.environment.requests import authorization, http_client
from ponder.environment.urls import without_password
from ponder.protocol.curves import CurvesReport
from ponder.protocol.finish import Finish
from ponder.protocol.response import ChatCompletion, ModelList
from ponder.protocol.savings import Feedback, SavingsReport

CHAT = "/v1/chat/completions"
MODELS = "/v1/models"
CURVES = "/v1/ponder/curves"
SAVINGS = "/v1/ponder/savings"
DEFAULT_TIMEOUT = 600.0
CONNECT_TIMEOUT = 5.0
KEPT_CONNECTIONS = 20

Body = TypeVar("Body", bound=BaseModel)


def _settings(base_url: str, api_key: str | None, timeout: float) -> dict[str, Any]:
    return {
        "base_url": base_url,
        "headers": authorization(environment.api_key() if api_key is None else api_key),
        "timeout": httpx.Timeout(timeout, connect=min(timeout, CONNECT_TIMEOUT)),
        # Any number at once: a stream is finished over a connection beside those of all streams.
        "limits": httpx.Limits(max_keepalive_connections=KEPT_CONNECTIONS),
    }


def _find(base_url: str | None) -> str:
    if base_url is not None:
        return server_root(base_url)
    try:
        return server_root(environment.server_url() or environment.DEFAULT_URL)
    except ValueError as error:
        raise ValueError(f"{environment.named(environment.URL)}: {error}") from None


def _path(response_id: str, what: str) -> str:
    return f"/v1/ponder/{quote(response_id, safe='')}/{what}"


def _read(kind: type[Body], response: httpx.Response) -> Body:
    if not response.is_success:
        raise error_of_response(response)
    try:
        return kind.model_validate_json(response.content)
    except ValidationError as error:
        url = without_password(str(response.url))
        message = f"{url} did not answer with a {kind.__name__}: is it a Ponder server?"
        raise PonderAPIError(response.status_code, "invalid_response", message) from error


def _first(models: ModelList) -> str:
    if not models.data:
        raise PonderAPIError(200, "invalid_response", "the server lists no model: name one")
    return models.data[0].id


class Ponder:
    """A Ponder server. Close it, or use it in a `with`.

    `base_url` and `api_key` default to PONDER_URL and PONDER_API_KEY, then to OPENAI_BASE_URL and
    OPENAI_API_KEY, and the URL at last to that of `ponder serve`. `timeout` is in seconds: how long
    the server may stay silent. The client repeats a request that a busy or failing server refuses
    up to `max_retries` times. When it gets no answer, every method raises `PonderAPIError`, and
    nothing else; for what cannot be sent, `ValueError`.
    """

    def __init__(
        self,
        base_url: str | None = None,
        api_key: str | None = None,
        timeout: float = DEFAULT_TIMEOUT,
        *,
        max_retries: int = MAX_RETRIES,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self.base_url = _find(base_url)
        settings = _settings(self.base_url, api_key, timeout)
        self._http = http_client(httpx.Client, **settings, transport=transport)
        self._max_retries = max(0, max_retries)
        self._model: str | None = None

    def models(self) -> ModelList:
        """The server's models, and what each accepts."""
        return _read(ModelList, self._send("GET", MODELS))

    @overload
    def chat(
        self,
        messages: Messages,
        *,
        budget: Budget | None = None,
        model: str | None = None,
        name: str | None = None,
        stream: Literal[False] = False,
        **options: Unpack[ChatOptions],
    ) -> ChatCompletion: ...

    @overload
    def chat(
        self,
        messages: Messages,
        *,
        budget: Budget | None = None,
        model: str | None = None,
        name: str | None = None,
        stream: Literal[True],
        **options: Unpack[ChatOptions],
    ) -> ChatStream: ...

    def chat(
        self,
        messages: Messages,
        *,
        budget: Budget | None = None,
        model: str | None = None,
        name: str | None = None,
        stream: bool = False,
        **options: Unpack[ChatOptions],
    ) -> ChatCompletion | ChatStream:
        """Send a conversation and return the reply; a plain string is one user message.

        `budget` is in thinking tokens: 0 answers without thinking, -1 is no limit, "auto" takes the
        budget from the model's calibrated curve, None is the server's default. `model` defaults to
        the first one that the server lists. `finish` finds the reply by its `name`, even before the
        reply has an id.
        """
        asked = model or self._first_model()
        body = chat_body(messages, model=asked, budget=budget, stream=stream, options=options)
        response = self._send("POST", CHAT, body, stream=stream, headers=naming(name))
        if stream and response.is_success:
            return ChatStream(response, self.base_url, self.finish)
        return _read(ChatCompletion, response)

    def finish(self, response_id: str, choice: int | None = None) -> Finish:
        """Close the thoughts of a running reply now, or only that of one `choice`.

        `response_id` is the reply's id or the `name` of its chat. A second call returns the same.
        Raises `PonderAPIError`: `not_thinking` where the answer is being written,
        `response_not_found` where no such reply runs.
        """
        path = _path(response_id, "finish")
        return _read(Finish, self._send("POST", path, {"choice": choice}))

    def feedback(self, response_id: str, score: float) -> Feedback:
        """Score a response from 0 to 1; a later score replaces an earlier one."""
        path = _path(response_id, "feedback")
        return _read(Feedback, self._send("POST", path, {"score": score}))

    def curves(self) -> CurvesReport:
        """The calibrated curves by task, and the budgets of efforts and "auto"."""
        return _read(CurvesReport, self._send("GET", CURVES))

    def savings(self) -> SavingsReport:
        """The effect of the server's saving policy, with intervals."""
        return _read(SavingsReport, self._send("GET", SAVINGS))

    def _send(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        stream: bool = False,
        headers: Mapping[str, str] | None = None,
    ) -> httpx.Response:
        """The response, or the last refusal, whose body has been read."""
        for attempt in range(self._max_retries + 1):
            with transport_errors(self.base_url):
                request = self._http.build_request(method, path, json=body, headers=headers)
                response = self._http.send(request, stream=stream)
                if not response.is_success:
                    response.read()
            if response.is_success or (wait := pause(response, attempt)) is None:
                break
            if attempt < self._max_retries:
                time.sleep(wait)
        return response

    def _first_model(self) -> str:
        if self._model is None:
            self._model = _first(self.models())
        return self._model

    def close(self) -> None:
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AsyncPonder:
    """As `Ponder`, with `await`: `async for chunk in await client.chat(…, stream=True)`."""

    def __init__(
        self,
        base_url: str | None = None,
        api_key: str | None = None,
        timeout: float = DEFAULT_TIMEOUT,
        *,
        max_retries: int = MAX_RETRIES,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self.base_url = _find(base_url)
        settings = _settings(self.base_url, api_key, timeout)
        self._http = http_client(httpx.AsyncClient, **settings, transport=transport)
        self._max_retries = max(0, max_retries)
        self._model: str | None = None

    async def models(self) -> ModelList:
        """The server's models, and what each accepts."""
        return _read(ModelList, await self._send("GET", MODELS))

    @overload
    async def chat(
        self,
        messages: Messages,
        *,
        budget: Budget | None = None,
        model: str | None = None,
        name: str | None = None,
        stream: Literal[False] = False,
        **options: Unpack[ChatOptions],
    ) -> ChatCompletion: ...

    @overload
    async def chat(
        self,
        messages: Messages,
        *,
        budget: Budget | None = None,
        model: str | None = None,
        name: str | None = None,
        stream: Literal[True],
        **options: Unpack[ChatOptions],
    ) -> AsyncChatStream: ...

    async def chat(
        self,
        messages: Messages,
        *,
        budget: Budget | None = None,
        model: str | None = None,
        name: str | None = None,
        stream: bool = False,
        **options: Unpack[ChatOptions],
    ) -> ChatCompletion | AsyncChatStream:
        """As `Ponder.chat`."""
        asked = model or await self._first_model()
        body = chat_body(messages, model=asked, budget=budget, stream=stream, options=options)
        response = await self._send("POST", CHAT, body, stream=stream, headers=naming(name))
        if stream and response.is_success:
            return AsyncChatStream(response, self.base_url, self.finish)
        return _read(ChatCompletion, response)

    async def finish(self, response_id: str, choice: int | None = None) -> Finish:
        """Close the thoughts of a running reply now, or only that of one `choice`.

        `response_id` is the reply's id or the `name` of its chat. A second call returns the same.
        Raises `PonderAPIError`: `not_thinking` where the answer is being written,
        `response_not_found` where no such reply runs.
        """
        path = _path(response_id, "finish")
        return _read(Finish, await self._send("POST", path, {"choice": choice}))

    async def feedback(self, response_id: str, score: float) -> Feedback:
        """Score a response from 0 to 1; a later score replaces an earlier one."""
        path = _path(response_id, "feedback")
        return _read(Feedback, await self._send("POST", path, {"score": score}))

    async def curves(self) -> CurvesReport:
        """The calibrated curves by task, and the budgets of efforts and "auto"."""
        return _read(CurvesReport, await self._send("GET", CURVES))

    async def savings(self) -> SavingsReport:
        """The effect of the server's saving policy, with intervals."""
        return _read(SavingsReport, await self._send("GET", SAVINGS))

    async def _send(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        stream: bool = False,
        headers: Mapping[str, str] | None = None,
    ) -> httpx.Response:
        """The response, or the last refusal, whose body has been read."""
        for attempt in range(self._max_retries + 1):
            with transport_errors(self.base_url):
                request = self._http.build_request(method, path, json=body, headers=headers)
                response = await self._http.send(request, stream=stream)
                if not response.is_success:
                    await response.aread()
            if response.is_success or (wait := pause(response, attempt)) is None:
                break
            if attempt < self._max_retries:
                await asyncio.sleep(wait)
        return response

    async def _first_model(self) -> str:
        if self._model is None:
            self._model = _first(await self.models())
        return self._model

    async def close(self) -> None:
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
