"""The dialect that docs/extending gives to copy: one file and one row make an endpoint."""

from __future__ import annotations

import json

import httpx
import pytest
from ask_dialect import AskDialect

from ponder.protocol.dialects import DIALECTS
from waiting import wait_until

from .conftest import Serve
from .test_savings import series

QUESTION = {"question": "What is 40 + 2?", "budget": 64}


@pytest.fixture(autouse=True)
def row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(DIALECTS, "/ask", AskDialect())  # type: ignore[arg-type]


def test_it_answers_whole_and_streamed(serve: Serve) -> None:
    running = serve()
    whole = httpx.post(f"{running.url}/ask", json=QUESTION).json()
    assert whole["answer"] == "The answer is 42."
    assert (whole["thought"], whole["end_cause"]) == ("First I add. Then I check it.", "natural")
    said = {"thought": "", "answer": ""}
    streamed = httpx.post(f"{running.url}/ask", json={**QUESTION, "stream": True})
    for line in streamed.text.splitlines():
        if line:
            for part, text in json.loads(line.removeprefix("data: ")).items():
                said[part] += text
    assert said == {"thought": whole["thought"], "answer": whole["answer"]}
    wait_until(lambda: sum(series(running, "ponder_requests_total").values()) == 2)


def test_its_errors_speak_its_words(serve: Serve) -> None:
    running = serve(max_model_len=64, api_key="a key")
    url, key = f"{running.url}/ask", {"authorization": "Bearer a key"}
    unknown = httpx.post(url, json={**QUESTION, "limit": 3}, headers=key)
    assert (unknown.status_code, unknown.json()["field"]) == (400, "limit")
    long = httpx.post(url, json={"question": "7 " * 500}, headers=key)
    assert (long.status_code, long.json()["field"]) == (400, "question")
    assert httpx.post(url, json=QUESTION).status_code == 401
    schema = httpx.get(f"{running.url}/openapi.json", headers=key).json()
    assert "post" in schema["paths"]["/ask"]
