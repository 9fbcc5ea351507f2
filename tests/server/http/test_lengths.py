"""Everything a client sends has a length: longer is refused in few words, and not logged."""

from __future__ import annotations

import json
import logging

import httpx
import pytest

from .conftest import Serve

HUGE = "xyzzy" * 40_000
HELLO = {"messages": [{"role": "user", "content": "hi"}]}


def said(content: object) -> dict[str, object]:
    return {"messages": [{"role": "user", "content": content}]}


LONG = {
    "prompt": said(HUGE),
    "blank prompt": said(" " * 200_000),
    "digits": said("1" * 200_000),
    "messages": {"messages": [{"role": "user", "content": "a"}] * 3000},
    "wrong messages": {"messages": [1] * 100_000},
    "parts": said([{"type": "text", "text": ""}] * 2000),
    "details": {
        "messages": [
            *HELLO["messages"],
            {"role": "assistant", "content": "a", "reasoning_details": [0] * 2000},
        ]
    },
    "wrong parts": said([1] * 100_000),
    "values": {**HELLO, "budget": [[]] * 200_000},
    "strings": {**HELLO, "budget": [""] * 600_000},
    "a name": {**HELLO, HUGE: 1},
    "names": {**HELLO, **{f"xyzzy{n}": n for n in range(50_000)}},
    "a name within": {**HELLO, "ponder": {HUGE: 1}},
    "budget": {**HELLO, "budget": HUGE},
    "effort": {**HELLO, "reasoning_effort": HUGE},
    "model": {**HELLO, "model": HUGE},
    "short model": {**HELLO, "model": "xyzzy" * 90},
    "user": {**HELLO, "user": HUGE},
    "scope": {**HELLO, "ponder": {"scope": HUGE}},
    "stop": {**HELLO, "stop": HUGE},
    "stops": {**HELLO, "stop": ["a"] * 100_000},
    "stop ids": {**HELLO, "stop_token_ids": list(range(100_000))},
    "wrong stop ids": {**HELLO, "stop_token_ids": ["xyzzy"] * 100_000},
    "bias": {**HELLO, "logit_bias": {str(n): 1 for n in range(50_000)}},
    "wrong bias": {**HELLO, "logit_bias": {f"xyzzy{n}": 1 for n in range(50_000)}},
    "metadata": {**HELLO, "metadata": {f"xyzzy{n}": "" for n in range(1000)}},
    "metadata name": {**HELLO, "metadata": {HUGE: ""}},
    "metadata value": {**HELLO, "metadata": {"xyzzy": HUGE}},
    "template": {**HELLO, "chat_template_kwargs": {HUGE: 1}},
    "templates": {**HELLO, "chat_template_kwargs": {f"xyzzy{n}": n for n in range(1000)}},
    "switch": {**HELLO, "chat_template_kwargs": {"enable_thinking": HUGE}},
    "tools": {**HELLO, "tools": [{}] * 50_000},
    "close": {**HELLO, "ponder": {"close_text": HUGE}},
    "a number": {**HELLO, "max_tokens": 10**4000},
    "a budget": {**HELLO, "budget": 10**4000},
    "a role": {"messages": [{"role": HUGE, "content": "hi"}]},
}


@pytest.mark.parametrize("name", LONG)
def test_what_is_too_long_is_refused_in_few_words(
    serve: Serve, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    caplog.set_level(logging.INFO)
    answer = httpx.post(f"{serve().url}/v1/chat/completions", json=LONG[name], timeout=60)
    assert 400 <= answer.status_code < 500
    error = answer.json()["error"]
    assert len(answer.content) < 1500
    assert len(error["param"] or "") <= 100
    assert error["message"].count("xyzzy") <= 40
    logged = json.dumps(
        [{**vars(record), "args": record.getMessage()} for record in caplog.records], default=str
    )
    assert "xyzzy" not in logged
    (fields,) = (record.fields for record in caplog.records if hasattr(record, "fields"))  # type: ignore[attr-defined]
    assert fields["status"] == answer.status_code


def test_text_that_looks_like_values_is_text(serve: Serve) -> None:
    text = '[{\\"a\\": 1},' * 40_000
    answer = httpx.post(f"{serve().url}/v1/chat/completions", json=said(text), timeout=60)
    assert answer.json()["error"]["code"] == "context_length_exceeded"
    assert "the prompt has roughly" in answer.json()["error"]["message"]
