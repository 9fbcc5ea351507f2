"""Who answers the questions of an evaluation: a checkpoint on this machine, or a server's URL.

Both run the very controller that serves: the checkpoint through `ponder.thought`, the URL because
a Ponder server stands behind it.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self

import httpx

from ponder.engine import vllm
from ponder.engine.base import Engine, Sampling
from ponder.engine.tokenizer import HFTokenizer
from ponder.thought.answer import AnswerDelta
from ponder.thought.budget import Ask, Limits, resolve
from ponder.thought.contract import Contract
from ponder.thought.controller import AnswerRules, Thought, ThoughtDelta
from ponder.thought.errors import NoAnswerProduced
from ponder.thought.format import CompiledFormat, ThoughtFormat

_HTTP_TIMEOUT_S = 600.0


class ResponderError(Exception):
    """Nobody can answer; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer (the text after the thought), what the thought took and why it ended."""

    text: str
    thinking_tokens: int
    end_cause: str


class Responder(Protocol):
    """Answers questions, many at once. `budget` -1 thinks freely; sampled at temperature 1.

    The same question, budget and seed give the same thought on an idle engine; under a smaller
    budget, its beginning. `answer` raises `ResponderError` when nothing more can be answered.
    """

    async def answer(self, question: str, budget: int, seed: int) -> Reply: ...
    async def close(self) -> None: ...


class LocalResponder:
    """A checkpoint with a contract, on an engine in this process."""

    def __init__(
        self, engine: Engine, tokenizer: HFTokenizer, form: CompiledFormat, limits: Limits
    ) -> None:
        self._engine = engine
        self._tokenizer = tokenizer
        self._form = form
        self._limits = limits
        self._numbers = itertools.count()

    @classmethod
    def start(cls, directory: Path) -> Self:
        """Load `directory` on vLLM, inside a running event loop.

        Raises `ResponderError` where there is no contract, `ContractError` where it does not hold.
        """
        contract = Contract.load(directory)
        if contract is None:
            raise ResponderError(
                f"{directory} has no ponder.json: serve it with `ponder serve {directory}` and "
                "evaluate the server's URL"
            )
        tokenizer = HFTokenizer(directory)
        form = CompiledFormat.of(ThoughtFormat.of_contract(contract), contract.opened_by, tokenizer)
        engine = vllm.VLLMEngine.start(str(directory), vllm.prepare(directory))
        return cls(engine, tokenizer, form, Limits(max_model_len=engine.max_model_len))

    async def answer(self, question: str, budget: int, seed: int) -> Reply:
        text = self._tokenizer.render([{"role": "user", "content": question}], {})
        prompt, close = self._tokenizer.encode(text), self._form.close
        plan = resolve(
            Ask(budget=budget),
            self._limits,
            prompt_tokens=len(prompt),
            close_tokens=len(close.ids),
            thinks=True,
        )
        answer: list[str] = []

        def emit(delta: ThoughtDelta | AnswerDelta) -> None:
            if isinstance(delta, AnswerDelta):
                answer.append(delta.text)

        thought = Thought(
            self._engine,
            self._tokenizer,
            self._form,
            prompt=prompt if plan.budget else [*prompt, *close.ids],
            plan=plan,
            sampling=Sampling(max_tokens=plan.allowance, seed=seed),
            rules=AnswerRules(),
            request_id=f"eval-{next(self._numbers)}",
        )
        try:
            outcome = await thought.run(emit)
        except NoAnswerProduced:
            outcome = thought.outcome  # a wrong answer, not a failed evaluation
        return Reply("".join(answer), outcome.thinking_tokens, outcome.end_cause)

    async def close(self) -> None:
        self._engine.shutdown()


class HttpResponder:
    """A Ponder server, asked over HTTP."""

    def __init__(self, url: str, transport: httpx.AsyncBaseTransport | None = None) -> None:
        self._url = url.rstrip("/")
        self._http = httpx.AsyncClient(
            base_url=self._url, timeout=_HTTP_TIMEOUT_S, transport=transport
        )
        self._model: str | None = None

    async def answer(self, question: str, budget: int, seed: int) -> Reply:
        if self._model is None:
            self._model = (await self._send("GET", "/v1/models"))["data"][0]["id"]
        body = {
            "model": self._model,
            "messages": [{"role": "user", "content": question}],
            "thinking_token_budget": budget,
            "temperature": 1.0,
            "seed": seed,
        }
        completion = await self._send("POST", "/v1/chat/completions", body)
        if "choices" not in completion:
            return Reply("", 0, "error")
        choice = completion["choices"][0]
        report = choice["ponder"]
        return Reply(
            choice["message"]["content"] or "", report["thinking_tokens"], report["end_cause"]
        )

    async def close(self) -> None:
        await self._http.aclose()

    async def _send(self, method: str, path: str, body: object = None) -> Any:
        """The JSON of a reply; `no_answer_produced` is one too, any other failure is an error."""
        try:
            response = await self._http.request(method, path, json=body)
            content = response.json()
        except (httpx.HTTPError, ValueError) as error:
            raise ResponderError(
                f"{self._url}{path} did not answer: {error!r}; is it a Ponder server?"
            ) from error
        unanswered = _error_code(content) == "no_answer_produced"
        if response.is_error and not unanswered:
            raise ResponderError(f"{self._url}{path}: {response.status_code} {response.text}")
        return content


def _error_code(content: Any) -> str | None:
    error = content.get("error") if isinstance(content, dict) else None
    return error.get("code") if isinstance(error, dict) else None
