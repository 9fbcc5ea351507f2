"""Asks a server over HTTP: Ponder's, or any that speaks OpenAI's chat completions."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import httpx

from ponder.environment.requests import authorization, http_client
from ponder.environment.urls import without_password
from ponder.tasks.calculator import written_call
from ponder.thought.budget import UNLIMITED

from ..protocol import Ask, Mode, Reply, ResponderError, Subject, concurrently

_TIMEOUT_S = 660.0  # a server's own limit, 600 s by default, comes first
_DAY_MS = 86_400_000  # the longest deadline that a Ponder server accepts
_BUSY = (429, 503)
_UNANSWERED = (
    "no_answer_produced", "answer_did_not_fit", "deadline_unreachable", "deadline_exceeded",
)  # fmt: skip
_PATIENCE = 6  # a busy server is asked again after 1, 2, 4 … seconds, or when it says
_LONGEST_PAUSE_S = 60.0

_PONDER_LACKS: dict[Mode, str] = {
    "efficient": "a field of its API that prefills the thought",
    "hinted": "a field of its API that hints at a budget without also cutting at it",
}
_FOREIGN_LACKS: dict[Mode, str] = {
    "efficient": "a way to prefill the thought",
    "hinted": "a way to prefill the thought",
    "truncated": "a thinking budget that is kept to the token",
    "served": "a thinking budget that is kept to the token",
}


class HttpResponder:
    """A server at `url`, as OpenAI's client takes it; after a bare host /v1 may be left out.

    The `ponder` block of its model card identifies a Ponder server. `model` may be left out where
    the server has only one. `max_tokens` bounds thought and answer together. A Ponder server cuts a
    thought of its own for every budget; under one seed these thoughts begin alike. `ponder` is
    added to the `ponder` field of every request to a Ponder server, such as an early exit. Raises
    `ResponderError` for a URL, a key or a proxy of the environment that no request can use.
    """

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        model: str | None = None,
        max_tokens: int | None = None,
        ponder: Mapping[str, object] | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._url = _base(url.strip())
        self._shown = without_password(self._url)
        try:
            self._http = http_client(
                httpx.AsyncClient,
                timeout=_TIMEOUT_S,
                transport=transport,
                headers=authorization(api_key),
            )
        except ValueError as error:
            raise ResponderError(str(error)) from error
        self._model = model
        self._max_tokens = max_tokens
        self._is_ponder = False
        self._asked = ponder or {}
        self._policy: dict[str, object] = {}  # switches off the server's own interventions

    async def subject(self) -> Subject:
        listed = await self._send("GET", "/models")
        try:
            cards = {card["id"]: card for card in listed["data"]}
        except (KeyError, TypeError) as error:
            raise ResponderError(
                f"{self._shown}/models is no list of models: {listed!r}"
            ) from error
        self._model = self._choose(list(cards))
        ponder = cards[self._model].get("ponder")
        self._is_ponder = ponder is not None
        if ponder:
            told = ponder.get("budget_hint") or ponder.get("budget_argument")
            does = {"hint": told, "loop_exit": ponder.get("loop_exit")}
            self._policy = {name: False for name, done in does.items() if done}
            if ponder.get("default_deadline_ms"):
                self._policy["deadline_ms"] = _DAY_MS
        return Subject(
            f"{self._model} at {self._shown}",
            tuple(ponder["trained_budgets"]) if ponder else (),
            lacks=_PONDER_LACKS if ponder else _FOREIGN_LACKS,
        )

    async def answer(
        self, asks: Sequence[Ask], advance: Callable[[int], object]
    ) -> list[list[Reply]]:
        async def one(ask: Ask) -> list[Reply]:
            replies = []
            for budget in ask.budgets:
                replies.append(await self._complete(ask, budget))
                advance(1)
            return replies

        return await concurrently(one, asks)

    async def close(self) -> None:
        await self._http.aclose()

    def _choose(self, names: list[str]) -> str:
        if self._model is None and len(names) == 1:
            return names[0]
        if self._model in names:
            return self._model
        if not names:
            raise ResponderError(f"{self._shown} serves no model: load one")
        wanted = "several models" if self._model is None else f"no model {self._model!r}"
        raise ResponderError(
            f"{self._shown} serves {wanted}: choose one with --model, of {', '.join(names)}"
        )

    async def _complete(self, ask: Ask, budget: int) -> Reply:
        body: dict[str, Any] = {
            "model": self._model,
            "messages": ask.messages,
            "temperature": 1.0,
            "seed": ask.seed,
        }
        if ask.tools:
            body["tools"] = list(ask.tools)
        if self._max_tokens is not None:
            body["max_tokens"] = self._max_tokens
        if self._is_ponder:
            body["thinking_token_budget"] = budget
            # An evaluation measures the policy, so no question may fall into the holdout.
            body["ponder"] = {"holdout": "never", **self._asked}
            if ask.hint != "served":
                body["ponder"] |= self._policy  # so that the cut alone is measured
        unknown = ask.hint not in (None, "served")
        if unknown or not (self._is_ponder or budget == UNLIMITED):
            raise ResponderError(f"{self._shown} cannot be asked under a hint or a budget")
        completion = await self._send("POST", "/chat/completions", body)
        if _error_code(completion) in _UNANSWERED:
            return Reply("", None, "error")
        try:
            return _reply(completion)
        except (AttributeError, LookupError, TypeError) as error:
            raise ResponderError(
                f"{self._shown}/chat/completions gave no completion, but {completion!r:.300}; is "
                "it an OpenAI-compatible server?"
            ) from error

    async def _send(self, method: str, path: str, body: object = None) -> Any:
        """The JSON of a response; a reply that lacks an answer counts, other failures raise."""
        for attempt in range(_PATIENCE):
            try:
                response = await self._http.request(method, self._url + path, json=body)
            except httpx.HTTPError as error:
                raise self._silent(path, error) from error
            if response.status_code not in _BUSY:
                break
            await asyncio.sleep(_pause(response, attempt))
        try:
            content = response.json()
        except ValueError as error:  # a proxy's page
            if response.is_success:
                raise self._silent(path, error) from error
            content = None
        if response.is_error and _error_code(content) not in _UNANSWERED:
            remedy = ": name a key with --api-key" if response.status_code == 401 else ""
            raise ResponderError(
                f"{self._shown}{path}: {response.status_code} {response.text}{remedy}"
            )
        return content

    def _silent(self, path: str, error: Exception) -> ResponderError:
        return ResponderError(
            f"{self._shown}{path} did not answer: {error!r}; is it an OpenAI-compatible server?"
        )


def _base(url: str) -> str:
    """The URL to which the API's paths are added. Raises `ResponderError` for a malformed one."""
    try:
        parts = urlsplit(url)
        names = bool((parts.hostname or "").encode("idna")) and parts.port != 0
    except ValueError as error:
        raise ResponderError(f"the URL is malformed ({error}): write http://HOST:PORT") from error
    if not names:
        raise ResponderError(f"{without_password(url)} names no server: write http://HOST:PORT")
    return url.rstrip("/") + ("" if parts.path.strip("/") else "/v1")


def _pause(response: httpx.Response, attempt: int) -> float:
    """Seconds to wait before a busy server is asked again: its own word, up to a minute."""
    wait = response.headers.get("retry-after", "")
    return min(float(wait), _LONGEST_PAUSE_S) if wait.isdecimal() else float(2**attempt)


def _reply(completion: Any) -> Reply:
    choice = completion["choices"][0]
    message, usage = choice["message"], completion.get("usage") or {}
    called = [call["function"] for call in message.get("tool_calls") or []]
    calls = [written_call(call["name"], call["arguments"]) for call in called]
    text = "\n".join(filter(None, [message.get("content"), *calls]))
    if "ponder" in choice:
        report = choice["ponder"]
        return Reply(
            text,
            report["thinking_tokens"],
            report["end_cause"],
            usage.get("completion_tokens"),
            report.get("answer_tokens"),
            report.get("probe_tokens"),
        )
    details = usage.get("completion_tokens_details") or {}
    cause = "length" if choice.get("finish_reason") == "length" else "natural"
    if not (message.get("reasoning") or message.get("reasoning_content")):
        # A server that does not parse thoughts leaves them in front of the answer. No answer
        # follows a thought that the token limit cut.
        _, ended, answer = text.rpartition("</think>")
        text = answer if ended or (cause == "natural" and "<think>" not in text) else ""
    return Reply(text, details.get("reasoning_tokens"), cause)


def _error_code(content: Any) -> str | None:
    error = content.get("error") if isinstance(content, dict) else None
    return error.get("code") if isinstance(error, dict) else None
