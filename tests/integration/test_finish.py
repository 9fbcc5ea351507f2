"""A thought is finished on the real engine: mid-way, and before the engine had its turn."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from clients.terminal import Terminal
from waiting import PATIENCE, wait_until

from .conftest import ServerProcess

pytestmark = pytest.mark.engine

QUESTION = "What is 38 + 45 - 17 + 26?"
TURNS = [{"role": "user", "content": QUESTION}]
LEAST = 1200  # tokens that the engine would think for, if nobody had its thought finished
LONG: dict[str, Any] = {"thinking_token_budget": 1500, "ponder": {"min_thinking_tokens": LEAST}}
DIALECTS: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": TURNS, **LONG},
    "/v1/completions": {
        "prompt": f"{QUESTION}\n",
        "max_tokens": 1800,
        **LONG,
        "ponder": {**LONG["ponder"], "thinking": "open"},
    },
    "/v1/messages": {"messages": TURNS, "model": "tiny", "max_tokens": 1800, **LONG},
    "/v1/responses": {"input": QUESTION, **LONG},
}
PARTS = ("thinking", "forced", "answer", "retry", "probe")


def finish(server: ServerProcess, name: str) -> httpx.Response:
    return httpx.post(f"{server.url}/v1/ponder/{name}/finish", timeout=PATIENCE)


def reported(told: Any) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """The report of a reply or of an event, and the usage beside it."""
    usage: dict[str, Any] | None = None
    report: dict[str, Any] = {}
    for part in (told, told.get("response") or {}, *told.get("choices", ())):
        report = part.get("ponder") or report
        usage = part.get("usage") or usage
    return report, usage


def check(report: dict[str, Any], usage: dict[str, Any]) -> None:
    assert (report["end_cause"], report["answer_forced"]) == ("finish_now", True)
    spent = usage.get("completion_tokens", usage.get("output_tokens"))
    assert spent == sum(report[f"{part}_tokens"] for part in PARTS)
    assert report["answer_tokens"] > 0


@pytest.mark.parametrize("path", DIALECTS)
def test_a_stream_s_thought_is_finished_mid_way(server: ServerProcess, path: str) -> None:
    body = {**DIALECTS[path], "stream": True, "temperature": 0}
    if path.endswith("completions"):
        body["stream_options"] = {"include_usage": True}
    report, usage, heard = {}, {}, 0
    with httpx.stream("POST", f"{server.url}{path}", json=body, timeout=PATIENCE) as reply:
        assert reply.status_code == 200, reply.read()
        for line in reply.iter_lines():
            if not line.startswith("data: {"):
                continue
            heard += 1
            if heard == 9:
                told = finish(server, reply.headers["x-request-id"])
                assert (told.status_code, told.json()["choices"]) == (202, [0])
            more, counted = reported(json.loads(line[6:]))
            report, usage = more or report, counted or usage
    check(report, usage)
    assert 0 < report["thinking_tokens"] < LEAST


@pytest.mark.parametrize("path", DIALECTS)
def test_a_whole_reply_s_thought_is_finished_while_it_waits(
    server: ServerProcess, path: str
) -> None:
    """The engine has not looked at the request: it stands still."""
    name = f"mine-{path.replace('/', '-')}"
    url, named = f"{server.url}{path}", {"x-client-request-id": name}
    with ThreadPoolExecutor(1) as pool:
        with server.hanging():
            reply = pool.submit(
                httpx.post, url, json=DIALECTS[path], headers=named, timeout=PATIENCE
            )
            wait_until(lambda: finish(server, name).status_code == 202)
        whole = reply.result().json()
    report, usage = reported(whole)
    assert usage is not None, whole
    check(report, usage)
    assert report["thinking_tokens"] <= 1  # what the engine was at, if it was
    assert finish(server, name).status_code == 404


def test_ctrl_c_in_a_chat_finishes_its_thought(server: ServerProcess, tmp_path: Path) -> None:
    running = server.metric("ponder_choices_running")
    terminal = Terminal("--url", server.url, "--budget", "1500", state=tmp_path)
    try:
        terminal.wait_for_prompt()
        with server.hanging():
            terminal.type(QUESTION)
            terminal.wait_for("waiting for the first token")
            wait_until(lambda: server.metric("ponder_choices_running") > running)
            terminal.press_ctrl_c()
            terminal.wait_for("finishing the thought · Ctrl-C again stops")
        shown = terminal.wait_for_prompt()
        assert "closed when asked to" in shown
        assert "thought 0/1500 tokens" in shown
        assert "The answer is" in shown
    finally:
        terminal.close()
