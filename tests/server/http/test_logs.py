"""A line for each request, as text and as JSON, with what an operator asks and no client's word."""

from __future__ import annotations

import io
import json
import logging
import re
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest

from ponder.server import logs
from waiting import wait_until

from .conftest import Serve

ENDLESS = "thinking and thinking. " * 400
CHAT = "/v1/chat/completions"


class Lines:
    """What the server logs; a request's line comes after its last byte."""

    def __init__(self, formatter: logging.Formatter) -> None:
        self._written = io.StringIO()
        self.handler = logging.StreamHandler(self._written)
        self.handler.setFormatter(formatter)

    def take(self, count: int) -> list[str]:
        wait_until(lambda: len(self.text.splitlines()) >= count)
        lines = self.text.splitlines()
        assert len(lines) == count, lines
        return lines

    def objects(self, count: int) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.take(count)]

    @property
    def text(self) -> str:
        return self._written.getvalue()


@pytest.fixture
def lines(request: pytest.FixtureRequest) -> Iterator[Lines]:
    """Of `--log-format json`, or of the formatter that a test names."""
    lines = Lines(getattr(request, "param", logs.JsonFormatter)())
    logs.process_log.addHandler(lines.handler)
    logs.process_log.setLevel(logging.INFO)
    yield lines
    logs.process_log.removeHandler(lines.handler)
    logs.process_log.setLevel(logging.NOTSET)


def test_a_request_is_an_object_with_all_that_it_took(serve: Serve, lines: Lines) -> None:
    running = serve(ENDLESS, "a private answer")
    replies = [running.ask("a private question", budget=budget) for budget in (3, 5)]
    running.ask(stream=True, budget=0)
    entries = lines.objects(3)
    assert [entry["request_id"] for entry in entries[:2]] == [reply.id for reply in replies]
    assert [entry["thinking_tokens"] for entry in entries] == [3, 5, 0]
    assert [entry["end_causes"] for entry in entries] == [["budget"], ["budget"], ["disabled"]]
    for reply, entry in zip(replies, entries, strict=False):
        assert entry["prompt_tokens"] == reply.usage.prompt_tokens
        assert entry["completion_tokens"] == reply.usage.completion_tokens
    for entry in entries:
        said = [entry[name] for name in ("level", "method", "path", "status", "arm", "error")]
        assert said == ["INFO", "POST", CHAT, 200, "policy", None]
        assert 0 < entry["first_token_seconds"] < entry["seconds"]
    assert "private" not in lines.text


@pytest.mark.parametrize("lines", [logs.TextFormatter], indirect=True)
def test_a_request_is_a_line_with_its_time_for_people(serve: Serve, lines: Lines) -> None:
    running = serve(ENDLESS, "a private answer")
    reply = running.ask("a private question", budget=3)
    (line,) = lines.take(1)
    assert re.match(rf"20\d\d-\d\d-\d\d \d\d:\d\d:\d\d POST {CHAT} 200 ", line)
    assert f"request_id={reply.id}" in line
    assert f"completion_tokens={reply.usage.completion_tokens}" in line
    assert "end_causes=budget" in line
    assert re.search(r" seconds=0\.\d+", line)
    assert "None" not in line
    assert "private" not in line


def test_a_failure_is_a_line_with_its_id_and_traceback(
    serve: Serve, lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_prompt: object, _number: int) -> Iterator[int]:
        raise RuntimeError("a defect")
        yield 0

    running = serve(script=fail)
    with pytest.raises(openai.InternalServerError):
        running.ask()
    by_level = {entry["level"]: entry for entry in lines.objects(2)}
    failed, ended = by_level["ERROR"], by_level["INFO"]
    assert "a defect" in failed["exception"]
    assert failed["request_id"] == ended["request_id"]
    assert (ended["error"], ended["status"]) == ("RuntimeError", 500)
    assert (ended["code"], ended["path"]) == ("internal_error", CHAT)


def test_a_refusal_is_a_line_without_what_was_said(serve: Serve, lines: Lines) -> None:
    running = serve()
    with pytest.raises(openai.BadRequestError):
        running.ask("a private question", n=0)
    (refused,) = lines.objects(1)
    assert (refused["status"], refused["code"], refused["param"]) == (400, "invalid_request", "n")
    assert (refused["method"], refused["path"]) == ("POST", CHAT)
    assert "private" not in lines.text


def test_a_stream_that_a_client_leaves_is_a_line_too(serve: Serve, lines: Lines) -> None:
    running = serve(ENDLESS, delay=0.01)
    body = {"messages": [{"role": "user", "content": "hi"}], "stream": True}
    with httpx.stream("POST", f"{running.url}{CHAT}", json=body) as stream:
        next(stream.iter_lines())
    (left,) = lines.objects(1)
    assert (left["status"], left["code"]) == (200, "client_disconnected")
    assert left["completion_tokens"] > 0


def test_probes_that_go_well_are_no_lines(serve: Serve, lines: Lines) -> None:
    running = serve()
    for path in ("/healthz", "/readyz", "/metrics"):
        assert httpx.get(f"{running.url}{path}").status_code == 200
    running.service.gate.draining = True
    assert httpx.get(f"{running.url}/readyz").status_code == 503
    assert [(entry["path"], entry["status"]) for entry in lines.objects(1)] == [("/readyz", 503)]


def test_a_path_that_a_client_made_up_is_cut_and_stays_one_line(serve: Serve, lines: Lines) -> None:
    running = serve()
    httpx.get(f"{running.url}/%0A{'x' * 1000}")
    (refused,) = lines.objects(1)
    assert refused["status"] == 404
    assert refused["path"].startswith("/\\nxxx")
    assert len(refused["path"]) <= 100
    assert len(lines.text) < 600


@pytest.mark.parametrize("lines", [logs.TextFormatter], indirect=True)
def test_the_process_speaks_of_itself_by_name(lines: Lines) -> None:
    logs.process_log.info("stopped")
    logs.process_log.critical("cannot listen")
    logging.getLogger("ponder.server").warning("a warning")
    stopped, cannot, warned = lines.take(3)
    assert stopped.endswith(" ponder: stopped")
    assert cannot == "ponder: cannot listen"
    assert warned.endswith(" WARNING a warning")
