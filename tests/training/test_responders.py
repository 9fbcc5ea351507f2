import asyncio
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest

from ponder.engine.scripted import ScriptedEngine
from ponder.engine.tokenizer import HFTokenizer
from ponder.thought.budget import Limits
from ponder.thought.contract import Contract
from ponder.thought.format import CompiledFormat, ThoughtFormat
from ponder.training.export import cold_start_contract, export
from ponder.training.recipe import SftRecipe
from ponder.training.responders import HttpResponder, LocalResponder, Reply, ResponderError
from ponder.training.sft import SftResult

THOUGHT = "We need 3 + 4.\nFirst 3 + 4 = 7.\nSo it is 7."


@pytest.fixture
def checkpoint(recipe: SftRecipe, trained: SftResult, tmp_path: Path) -> Path:
    export(tmp_path, trained.model, trained.tokenizer, cold_start_contract(recipe))
    return tmp_path


def scripted(checkpoint: Path) -> tuple[LocalResponder, ScriptedEngine, HFTokenizer]:
    """A responder whose model thinks `THOUGHT` and answers 7, or 5 when the thought was closed."""
    tokenizer = HFTokenizer(checkpoint)
    contract = Contract.load(checkpoint)
    assert contract is not None
    form = CompiledFormat.of(ThoughtFormat.of_contract(contract), contract.opened_by, tokenizer)

    def script(prompt: Sequence[int], _number: int) -> Iterator[int]:
        closed = tokenizer.decode(prompt).endswith("</think>\n\n")
        text = "It is 5." if closed else f"{THOUGHT}\n</think>\n\nIt is 7."
        return iter([*tokenizer.encode(text), *tokenizer.eos_token_ids])

    engine = ScriptedEngine(script, tokenizer)
    return LocalResponder(engine, tokenizer, form, Limits(max_model_len=512)), engine, tokenizer


def test_a_checkpoint_answers_under_every_budget(checkpoint: Path) -> None:
    responder, engine, tokenizer = scripted(checkpoint)
    whole = len(tokenizer.encode(THOUGHT + "\n"))

    def ask(budget: int) -> Reply:
        return asyncio.run(responder.answer("What is 3 + 4?", budget, seed=11))

    assert ask(-1) == Reply("It is 7.", whole, "natural")
    assert ask(8) == Reply("It is 5.", 8, "budget")
    assert ask(0) == Reply("It is 5.", 0, "disabled")
    prompt, sampling = engine.requests[-1]
    assert tokenizer.decode(prompt).endswith("<think>\n\n</think>\n\n")
    assert (sampling.temperature, sampling.seed) == (1.0, 11)


def test_a_model_without_a_contract_is_sent_to_a_server(checkpoint: Path) -> None:
    (checkpoint / "ponder.json").unlink()
    with pytest.raises(ResponderError, match="ponder serve"):
        LocalResponder.start(checkpoint)


def server(answer: Callable[[Any], httpx.Response]) -> HttpResponder:
    def handle(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/v1/models":
            return httpx.Response(200, json={"data": [{"id": "tiny"}]})
        assert request.url.path == "/v1/chat/completions"
        return answer(json.loads(request.content))

    return HttpResponder("http://server/", transport=httpx.MockTransport(handle))


def asked(responder: HttpResponder) -> Reply:
    async def ask() -> Reply:
        try:
            return await responder.answer("What is 3 + 4?", 32, seed=11)
        finally:
            await responder.close()

    return asyncio.run(ask())


def test_a_server_is_asked_with_the_budget() -> None:
    bodies = []

    def answer(body: Any) -> httpx.Response:
        bodies.append(body)
        choice = {
            "message": {"content": "It is 7."},
            "ponder": {"thinking_tokens": 21, "end_cause": "natural"},
        }
        return httpx.Response(200, json={"choices": [choice]})

    assert asked(server(answer)) == Reply("It is 7.", 21, "natural")
    assert bodies == [
        {
            "model": "tiny",
            "messages": [{"role": "user", "content": "What is 3 + 4?"}],
            "thinking_token_budget": 32,
            "temperature": 1.0,
            "seed": 11,
        }
    ]


def test_an_empty_answer_is_wrong_and_not_the_end() -> None:
    error = {"error": {"code": "no_answer_produced", "message": "nothing"}}
    assert asked(server(lambda _: httpx.Response(500, json=error))).text == ""


@pytest.mark.parametrize(
    "response",
    [
        httpx.Response(503, json={"error": {"code": "overloaded", "message": "later"}}),
        httpx.Response(200, text="<html>"),
    ],
)
def test_a_server_that_fails_says_so(response: httpx.Response) -> None:
    with pytest.raises(ResponderError, match="http://server/v1/chat"):
        asked(server(lambda _: response))
