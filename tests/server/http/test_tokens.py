"""`/tokenize` and `/detokenize`: what is counted is what is asked."""

from __future__ import annotations

from functools import cache
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ponder.engine.tokenizer import HFTokenizer, ModelFiles
from ponder.protocol.tokens import MOST_TEXT, TokenizeRequest
from ponder.server.model import ServedModel
from ponder.server.settings import BUNDLED_MODEL, Settings
from ponder.server.tokens import text_of, tokens_of
from ponder.thought.budget import Limits

from .conftest import Running, Serve

HELLO = [{"role": "user", "content": "What is 40 + 2?"}]


def post(running: Running, path: str, **body: Any) -> dict[str, Any]:
    answer = httpx.post(f"{running.url}{path}", json=body)
    assert answer.status_code == 200, answer.text
    said: dict[str, Any] = answer.json()
    return said


def refused(running: Running, path: str, **body: Any) -> dict[str, Any]:
    answer = httpx.post(f"{running.url}{path}", json=body)
    assert answer.status_code == 400, answer.text
    error: dict[str, Any] = answer.json()["error"]
    return error


@cache
def bundled() -> ServedModel:
    return ServedModel.load(ModelFiles.find(BUNDLED_MODEL), Settings())


def tokens(**fields: Any) -> list[int]:
    asked = TokenizeRequest.model_validate(fields)
    return tokens_of(asked, bundled(), Limits(max_model_len=1024))


words = st.sampled_from(["<think>", "</think>", "<|im_start|>", "<|im_end|>", " and", "\n"])
texts = st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=9) | words, max_size=9)


@given(texts)
def test_detokenize_reads_back_what_tokenize_wrote(parts: list[str]) -> None:
    text = "".join(parts)
    assert text_of(tokens(prompt=text), bundled()) == text


@given(st.lists(st.integers(0, 1023), max_size=12))
def test_every_token_has_a_text(ids: list[int]) -> None:
    assert isinstance(text_of(ids, bundled()), str)


def test_a_prompt_is_counted(serve: Serve) -> None:
    running = serve()
    tokenizer = running.service.model.tokenizer
    said = post(running, "/tokenize", model="tiny", prompt="<think>1 + 1", return_token_strs=True)
    assert said["tokens"] == tokenizer.encode("<think>1 + 1")
    assert (said["count"], said["max_model_len"]) == (len(said["tokens"]), 4096)
    assert said["token_strs"][0] == "<think>"
    assert post(running, "/detokenize", tokens=said["tokens"]) == {"prompt": "<think>1 + 1"}
    assert post(running, "/tokenize", prompt="a")["token_strs"] is None


@pytest.mark.parametrize(
    ("settings", "fields"),
    [
        ({}, {}),
        ({"default_budget": 100}, {}),
        ({"default_budget": 100, "hint": False}, {}),
        ({"default_budget": 0}, {}),
        ({}, {"chat_template_kwargs": {"enable_thinking": False}}),
    ],
)
def test_a_chats_count_is_its_prompt_tokens(
    serve: Serve, settings: dict[str, Any], fields: dict[str, Any]
) -> None:
    running = serve(**settings)
    said = post(running, "/tokenize", messages=HELLO, **fields)
    assert said["count"] == running.ask(messages=HELLO, **fields).usage.prompt_tokens
    assert said["tokens"] == running.engine.requests[0][0]


def test_a_completions_count_is_its_prompt_tokens(serve: Serve) -> None:
    running = serve("ok")
    said = post(running, "/tokenize", prompt="Once upon")
    with running.client() as client:
        reply = client.completions.create(model="tiny", prompt="Once upon")
    assert reply.usage is not None
    assert said["count"] == reply.usage.prompt_tokens


def test_messages_may_be_left_open_or_shut() -> None:
    chat = [*HELLO, {"role": "assistant", "content": "It is"}]
    decode = bundled().tokenizer.spell
    shut = decode(tokens(messages=chat, add_generation_prompt=False))
    opened = decode(tokens(messages=chat, add_generation_prompt=False, continue_final_message=True))
    asked = decode(tokens(messages=chat))
    assert opened.endswith("It is")
    assert shut.startswith(opened) and len(shut) > len(opened)
    assert asked.startswith(shut) and "<think>" in asked[len(shut) :]


def test_what_is_longer_than_the_context_is_counted(serve: Serve) -> None:
    running = serve(max_model_len=64)
    text = "word " * 200
    said = post(running, "/tokenize", prompt=text)
    assert said["count"] > said["max_model_len"] == 64
    chat = post(running, "/tokenize", messages=[{"role": "user", "content": text}])
    assert chat["count"] > said["count"]


def test_long_texts_are_counted_beside_the_others(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = serve()
    inline = post(running, "/tokenize", prompt="a b c " * 100)
    monkeypatch.setattr("ponder.server.answering.LONG_BYTES", 1)
    assert post(running, "/tokenize", prompt="a b c " * 100) == inline
    assert refused(running, "/tokenize")["code"] == "invalid_request"
    assert post(running, "/detokenize", tokens=inline["tokens"])["prompt"] == "a b c " * 100


@pytest.mark.parametrize(
    ("path", "fields", "param", "says"),
    [
        ("/tokenize", {}, None, "send either prompt or messages"),
        ("/tokenize", {"prompt": "a", "messages": HELLO}, None, "send either prompt or messages"),
        ("/tokenize", {"prompt": "a" * (MOST_TEXT + 1)}, "prompt", "at most 1048576 characters"),
        ("/tokenize", {"messages": []}, "messages", "must not be empty"),
        (
            "/tokenize",
            {"messages": [{"role": "user", "content": "a" * (MOST_TEXT + 1)}]},
            None,
            "messages hold more than 1048576 characters: send them in parts",
        ),
        (
            "/tokenize",
            {"messages": HELLO, "continue_final_message": True},
            None,
            "needs add_generation_prompt: false",
        ),
        (
            "/tokenize",
            {"messages": HELLO, "chat_template_kwargs": {"chat_template": "x"}},
            "chat_template_kwargs.chat_template",
            "is not for a request to set",
        ),
        ("/tokenize", {"messages": HELLO, "tools": [{}]}, "tools.0.function", "is required"),
        ("/detokenize", {}, "tokens", "is required: add it"),
        ("/detokenize", {"tokens": [10**6]}, "tokens", "names token 1000000"),
        ("/detokenize", {"tokens": [-1]}, "tokens.0", "must be at least 0"),
    ],
)
def test_what_cannot_be_counted_is_refused(
    serve: Serve, path: str, fields: dict[str, Any], param: str | None, says: str
) -> None:
    error = refused(serve(), path, **fields)
    assert (error["code"], error["param"]) == ("invalid_request", param)
    assert says in error["message"]


def test_they_are_behind_the_key_and_a_place(serve: Serve) -> None:
    running = serve(api_key="one", max_running=1)
    for path, body in (("/tokenize", {"prompt": "a"}), ("/detokenize", {"tokens": [1]})):
        url, key = f"{running.url}{path}", {"x-api-key": "one"}
        assert httpx.post(url, json=body).status_code == 401
        assert httpx.post(url, json=body, headers=key).status_code == 200
        other = httpx.post(url, json={**body, "model": "another"}, headers=key)
        assert other.json()["error"]["code"] == "model_not_found"
        running.service.gate.draining = True
        assert httpx.post(url, json=body, headers=key).json()["error"]["code"] == "draining"
        running.service.gate.draining = False
    assert running.service.gate.places == 0


def test_the_bundled_tokenizer_spells_its_special_tokens() -> None:
    tokenizer = HFTokenizer(ModelFiles.find(BUNDLED_MODEL).directory)
    (end,) = tokenizer.encode("<|im_end|>")
    assert (tokenizer.decode([end]), tokenizer.spell([end])) == ("", "<|im_end|>")
    assert tokenizer.names([end]) == ["<|im_end|>"]
