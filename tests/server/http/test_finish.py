"""`POST /v1/ponder/{id}/finish`: whoever asked for a reply may have its thoughts finished."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any, cast

import httpx
import pytest

from ponder.server.completion import Completion
from ponder.server.replies import OwnReplies
from waiting import PATIENCE, wait_until

from .conftest import Running, Serve
from .test_matrix import ANSWERS, DIALECTS, events
from .test_tools import TEMPLATE

NAME = "x-client-request-id"
CHAT = "/v1/chat/completions"
THOUGHT = "I think| of it." + " And on." * 50
ANSWER = "The answer| is 42."
MARK = "|"
"""Where the engine falls silent until it may go on."""


class Stage:
    """A server whose engine falls silent at each mark of what it says."""

    def __init__(
        self, serve: Serve, thought: str = THOUGHT, answer: str = ANSWER, **options: Any
    ) -> None:
        self._texts = (thought, answer)
        self._silences = threading.Semaphore(0)
        self._pool = ThreadPoolExecutor()
        self.running: Running = serve(script=self._script, **options)

    def _script(self, prompt: Sequence[int], _number: int) -> Iterator[int]:
        tokenizer = self.running.service.model.tokenizer
        (end,) = tokenizer.encode("</think>")
        first, *rest = self._texts[end in prompt].split(MARK)
        yield from tokenizer.encode(first)
        for part in rest:
            self.running.engine.hang()
            self._silences.release()
            yield from tokenizer.encode(part)
        yield min(tokenizer.eos_token_ids)

    def tokens(self, text: str) -> int:
        return len(self.running.service.model.tokenizer.encode(text))

    def silent(self) -> None:
        """Wait for the next mark."""
        assert self._silences.acquire(timeout=PATIENCE)

    def go_on(self) -> None:
        self.running.loop.call_soon_threadsafe(self.running.engine.go_on)

    def begin(self, ask: Callable[..., Any], *given: Any, **named: Any) -> Future[Any]:
        """Ask, and go on when the reply is being written."""
        before = len(self.ids)
        reply = self._pool.submit(ask, *given, **named)
        wait_until(lambda: len(self.ids) > before or reply.done())
        assert not reply.done(), reply.result()
        return reply

    @property
    def ids(self) -> list[str]:
        """What running replies are found by."""
        return [name for _, name in self.running.service.replies._running]  # type: ignore[attr-defined]

    def post(
        self, path: str = CHAT, *, key: str | None = None, name: str = "mine", **body: Any
    ) -> httpx.Response:
        body.setdefault("messages", [{"role": "user", "content": "What is 40 + 2?"}])
        body.setdefault("thinking_token_budget", 300)
        headers = {NAME: name, **_bearer(key)}
        return httpx.post(f"{self.running.url}{path}", json=body, headers=headers, timeout=PATIENCE)

    def finish(
        self, name: str, *, key: str | None = None, query: str = "", **sent: Any
    ) -> httpx.Response:
        url = f"{self.running.url}/v1/ponder/{name}/finish{query}"
        return httpx.post(url, headers=_bearer(key), **sent)


def _bearer(key: str | None) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"} if key else {}


def code(response: httpx.Response) -> tuple[int, str]:
    return response.status_code, response.json()["error"]["code"]


def exact(report: dict[str, Any], completion: int) -> bool:
    parts = ("thinking", "forced", "answer", "retry", "probe")
    return sum(report[f"{part}_tokens"] for part in parts) == completion


# -- the statuses ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ANSWERS)
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_thought_is_finished_in_every_dialect(
    serve: Serve, dialect: str, stream: bool, kind: str
) -> None:
    stage = Stage(serve, answer=ANSWERS[kind], template=TEMPLATE)
    reply = stage.begin(DIALECTS[dialect], stage.running.url, kind, 300, 900, stream)
    stage.silent()
    (name,) = stage.ids
    for _ in range(2):  # pressed twice
        told = stage.finish(name)
        assert told.status_code == 202
        assert told.json() == {"object": "ponder.finish", "id": name, "choices": [0]}
    stage.go_on()
    said = reply.result(PATIENCE)
    assert (said.thought, said.report["end_cause"]) == ("I think", "finish_now")
    assert said.report["answer_forced"] and not said.cut
    assert said.report["thinking_tokens"] == said.thinking == stage.tokens("I think")
    assert exact(said.report, said.completion)
    assert kind != "text" or said.text == ANSWERS["text"]
    assert kind != "json" or json.loads(said.text) == json.loads(ANSWERS["json"])
    assert kind != "call" or said.calls == [("weather", {"city": "Bonn"})]
    assert stage.running.engine.unfinished() == 0
    assert code(stage.finish(name)) == (404, "response_not_found")


@pytest.mark.parametrize("stream", [False, True])
def test_a_raw_prompt_s_thought_is_finished(serve: Serve, stream: bool) -> None:
    stage = Stage(serve)
    body = {"prompt": ["1 + 1?<think>", "2 + 2?"], "max_tokens": 500, "stream": stream}
    body |= {"messages": None, "thinking_token_budget": None}
    reply = stage.begin(stage.post, "/v1/completions", **body)
    stage.silent()
    told = stage.finish("mine")
    assert told.json()["choices"] == [0]  # the other prompt opens no thought
    assert code(stage.finish("mine", json={"choice": 1})) == (409, "not_thinking")
    wait_until(lambda: _all_end(stage, [reply]))
    said = reply.result()
    assert said.status_code == 200, said.text
    whole = events(said) if stream else said.json()["choices"]
    reports = [c["ponder"] for e in whole for c in e.get("choices", [e]) if c.get("ponder")]
    assert sorted(report["end_cause"] for report in reports) == ["disabled", "finish_now"]


def test_what_answers_does_not_think(serve: Serve) -> None:
    stage = Stage(serve, thought="I think.</think>The answer| is 42.")
    reply = stage.begin(stage.post)
    stage.silent()
    for _ in range(2):
        refused = stage.finish("mine")
        assert code(refused) == (409, "not_thinking")
        assert refused.headers["x-should-retry"] == "false"
    stage.go_on()
    (choice,) = reply.result(PATIENCE).json()["choices"]
    assert choice["ponder"]["end_cause"] == "natural"
    assert choice["message"]["content"] == "The answer is 42."


def test_a_finished_thought_stays_finished_while_it_is_answered(serve: Serve) -> None:
    stage = Stage(serve)
    reply = stage.begin(stage.post)
    stage.silent()
    assert stage.finish("mine").status_code == 202
    stage.go_on()
    stage.silent()  # in the answer
    assert stage.finish("mine").status_code == 202
    stage.go_on()
    (choice,) = reply.result(PATIENCE).json()["choices"]
    assert choice["message"]["content"] == "The answer is 42."
    assert choice["ponder"]["end_cause"] == "finish_now"


def test_without_a_thought_there_is_none_to_finish(serve: Serve) -> None:
    stage = Stage(serve, thought="", answer="4|2")
    reply = stage.begin(stage.post, thinking_token_budget=0)
    stage.silent()
    assert code(stage.finish("mine")) == (409, "not_thinking")
    stage.go_on()
    (choice,) = reply.result(PATIENCE).json()["choices"]
    assert choice["ponder"]["end_cause"] == "disabled"


def test_nobody_knows_a_reply_that_is_not_there(serve: Serve) -> None:
    stage = Stage(serve)
    refused = stage.finish("chatcmpl-1")
    assert code(refused) == (404, "response_not_found")
    assert refused.json()["error"]["param"] == "id"
    assert "'chatcmpl-1'" in refused.json()["error"]["message"]


def test_a_request_that_waits_is_finished_before_its_first_token(serve: Serve) -> None:
    """Whoever named the request need not wait for its id."""
    stage = Stage(serve, thought="I think.")
    stage.running.engine.hang()
    reply = stage.begin(stage.post)
    wait_until(lambda: stage.running.engine.unfinished() == 1)
    assert stage.finish("mine").status_code == 202
    stage.go_on()
    stage.silent()
    stage.go_on()
    (choice,) = reply.result(PATIENCE).json()["choices"]
    assert choice["ponder"]["thinking_tokens"] == 0
    assert choice["ponder"]["end_cause"] == "finish_now"
    assert choice["message"]["content"] == "The answer is 42."


def test_a_stream_begins_with_the_id(serve: Serve) -> None:
    for path, dialect in (
        (CHAT, {"stream": True}),
        ("/v1/completions", {"stream": True, "prompt": "1?<think>", "max_tokens": 900}),
        ("/v1/messages", {"stream": True, "max_tokens": 900}),
        ("/v1/responses", {"stream": True, "input": "1?"}),
    ):
        stage = Stage(serve)
        body: dict[str, Any] = {"thinking_token_budget": 300, **dialect}
        if path in (CHAT, "/v1/messages"):
            body["messages"] = [{"role": "user", "content": "1?"}]
        url = f"{stage.running.url}{path}"
        with httpx.stream("POST", url, json=body, timeout=PATIENCE) as reply:
            lines = reply.iter_lines()
            first = json.loads(next(x for x in lines if x.startswith("data:"))[5:])
            known = first.get("id") or first.get("message", first.get("response", {})).get("id")
            assert reply.headers["x-request-id"] == known
            stage.silent()
            assert stage.finish(known).status_code == 202
            stage.go_on()
            stage.silent()
            stage.go_on()
            rest = "".join(lines)
        assert '"finish_now"' in rest, path


# -- whose reply it is -------------------------------------------------------------------------


def test_another_key_finds_nothing(serve: Serve) -> None:
    stage = Stage(serve, api_key="one,two")
    reply = stage.begin(stage.post, key="one")
    stage.silent()
    (name, _) = stage.ids
    for given in (name, "mine"):
        known, unknown = stage.finish(given, key="two"), stage.finish("nothing", key="two")
        assert code(known) == code(unknown) == (404, "response_not_found")
        told = [
            x.json()["error"]["message"].replace(repr(y), "")
            for x, y in ((known, given), (unknown, "nothing"))
        ]
        assert told[0] == told[1]
    assert code(stage.finish(name)) == (401, "invalid_api_key")
    assert code(stage.finish(name, key="three")) == (401, "invalid_api_key")
    url = f"{stage.running.url}/v1/ponder/{name}/finish"
    assert httpx.post(url, headers={"x-api-key": "one"}).status_code == 202
    stage.go_on()
    stage.silent()
    stage.go_on()
    assert reply.result(PATIENCE).json()["choices"][0]["ponder"]["end_cause"] == "finish_now"


def test_each_key_has_names_of_its_own(serve: Serve) -> None:
    stage = Stage(serve, api_key="one,two")
    replies = {key: stage.begin(stage.post, key=key) for key in ("one", "two")}
    stage.silent()
    assert stage.finish("mine", key="two").status_code == 202
    wait_until(lambda: _all_end(stage, replies.values()))
    causes = {
        key: reply.result().json()["choices"][0]["ponder"]["end_cause"]
        for key, reply in replies.items()
    }
    assert causes == {"one": "natural", "two": "finish_now"}


def _all_end(stage: Stage, replies: Any) -> bool:
    stage.go_on()
    return all(reply.done() for reply in replies)


@pytest.mark.parametrize("asked", ["jobs/7 of 9", "jobs%2F7%20of%209"])
def test_a_name_may_hold_what_divides_paths(serve: Serve, asked: str) -> None:
    stage = Stage(serve)
    reply = stage.begin(stage.post, name="jobs/7 of 9")
    stage.silent()
    assert stage.finish(asked).status_code == 202
    wait_until(lambda: _all_end(stage, [reply]))
    assert reply.result().json()["choices"][0]["ponder"]["end_cause"] == "finish_now"


def test_a_name_that_is_used_again_is_the_last_one_s(serve: Serve) -> None:
    stage = Stage(serve)
    first = stage.begin(stage.post)
    stage.silent()
    second = stage.begin(stage.post)
    assert len(stage.ids) == 3
    assert stage.finish("mine").status_code == 202
    wait_until(lambda: _all_end(stage, [first, second]))
    causes = [x.result().json()["choices"][0]["ponder"]["end_cause"] for x in (first, second)]
    assert causes == ["natural", "finish_now"]
    assert stage.ids == []


def test_a_name_is_the_older_reply_s_again_once_the_newer_one_has_ended() -> None:
    older, newer = (
        cast(Completion, SimpleNamespace(id=id_, client_id="mine", tenant="")) for id_ in "ab"
    )
    replies = OwnReplies()
    with replies.writing(older):
        with replies.writing(newer):
            assert replies.find("mine", "") is newer
            assert replies.find("a", "") is older
        assert replies.find("mine", "") is older
    assert replies.find("mine", "") is None


# -- choices -----------------------------------------------------------------------------------


def test_all_choices_that_think_are_finished_or_the_one_that_is_named(serve: Serve) -> None:
    stage = Stage(serve)
    reply = stage.begin(stage.post, n=3)
    stage.silent()
    assert stage.finish("mine", json={"choice": 1}).json()["choices"] == [1]
    assert stage.finish("mine", query="?choice=2").json()["choices"] == [2]
    assert stage.finish("mine", json={"choice": None}).json()["choices"] == [0, 1, 2]
    wait_until(lambda: _all_end(stage, [reply]))
    said = reply.result().json()
    reports = [choice["ponder"] for choice in said["choices"]]
    assert [report["end_cause"] for report in reports] == ["finish_now"] * 3
    total = sum(
        report[f"{part}_tokens"]
        for report in reports
        for part in ("thinking", "forced", "answer", "retry", "probe")
    )
    assert total == said["usage"]["completion_tokens"]


def test_one_choice_of_several_is_finished_alone(serve: Serve) -> None:
    stage = Stage(serve)
    reply = stage.begin(stage.post, n=2)
    stage.silent()
    assert stage.finish("mine", json={"choice": 1}).status_code == 202
    wait_until(lambda: _all_end(stage, [reply]))
    causes = [choice["ponder"]["end_cause"] for choice in reply.result().json()["choices"]]
    assert causes == ["natural", "finish_now"]


MISTAKEN: list[tuple[dict[str, Any], str]] = [
    ({"json": {"choice": 2}}, "choice 2 is none of this reply's: it has choices 0 to 1"),
    ({"query": "?choice=7"}, "choice 7 is none of this reply's: it has choices 0 to 1"),
    ({"json": {"choice": -1}}, "choice must be at least 0, not -1"),
    ({"json": {"choice": "1"}}, "choice must be a whole number, not '1'"),
    ({"json": {"choice": True}}, "choice must be a whole number, not true"),
    ({"query": "?choice=x"}, "choice must be a whole number, not 'x'"),
    ({"query": "?choice=-1"}, "choice must be at least 0, not '-1'"),
    ({"query": "?choice=1", "json": {"choice": 1}}, "choice is in the body and in the URL"),
    ({"json": {"choices": [1]}}, "choices is not supported here"),
    ({"json": [1]}, "the body must be an object"),
    ({"content": b"choice=1"}, "the body is not JSON"),
]


def test_a_choice_that_is_none_is_said_to_be(serve: Serve) -> None:
    stage = Stage(serve)
    reply = stage.begin(stage.post, n=2)
    stage.silent()
    for sent, message in MISTAKEN:
        refused = stage.finish("mine", **sent)
        assert code(refused) == (400, "invalid_request")
        assert message in refused.json()["error"]["message"]
        if message.startswith("choice "):
            assert refused.json()["error"]["param"] == "choice"
    wait_until(lambda: _all_end(stage, [reply]))
    causes = {choice["ponder"]["end_cause"] for choice in reply.result().json()["choices"]}
    assert causes == {"natural"}


# -- beside everything else --------------------------------------------------------------------


def test_it_works_on_a_server_that_is_full_or_leaves(serve: Serve) -> None:
    stage = Stage(serve, max_running=1)
    reply = stage.begin(stage.post)
    stage.silent()
    assert code(stage.post(name="other")) == (503, "overloaded")
    stage.running.service.gate.draining = True
    assert stage.finish("mine").status_code == 202
    wait_until(lambda: _all_end(stage, [reply]))
    assert reply.result().json()["choices"][0]["ponder"]["end_cause"] == "finish_now"


def test_what_its_client_left_is_not_found(serve: Serve) -> None:
    stage = Stage(serve)
    url, body = f"{stage.running.url}{CHAT}", {"messages": [{"role": "user", "content": "1?"}]}
    with httpx.stream(
        "POST", url, json={**body, "budget": 300, "stream": True}, headers={NAME: "mine"}
    ) as reply:
        lines = reply.iter_lines()
        assert next(lines).startswith("data: ")
        assert len(stage.ids) == 2
    wait_until(lambda: stage.ids == [])
    assert code(stage.finish("mine")) == (404, "response_not_found")


def test_the_held_out_are_finished_too_and_all_of_it_is_counted(serve: Serve) -> None:
    stage = Stage(serve, holdout=0.99, holdout_key="a key of sixteen")
    reply = stage.begin(stage.post)
    stage.silent()
    assert stage.finish("mine").status_code == 202
    wait_until(lambda: _all_end(stage, [reply]))
    report = reply.result().json()["choices"][0]["ponder"]
    assert report["end_cause"] == "finish_now"
    metrics = httpx.get(f"{stage.running.url}/metrics").text
    arm = report["arm"]
    for name in (
        f'ponder_requests_total{{arm="{arm}",end_cause="finish_now"}} 1.0',
        f'ponder_truncations_total{{arm="{arm}",cause="finish_now"}} 1.0',
        f'ponder_thinking_tokens_total{{arm="{arm}"}} {float(report["thinking_tokens"])}',
        f'ponder_budget_violations_total{{arm="{arm}"}} 0.0',
        f'ponder_empty_answers_total{{arm="{arm}"}} 0.0',
    ):
        assert name in metrics


def test_the_least_thought_does_not_hold_against_its_asker(serve: Serve) -> None:
    stage = Stage(serve)
    reply = stage.begin(stage.post, ponder={"min_thinking_tokens": 200})
    stage.silent()
    assert stage.finish("mine").status_code == 202
    wait_until(lambda: _all_end(stage, [reply]))
    report = reply.result().json()["choices"][0]["ponder"]
    assert (report["end_cause"], report["thinking_tokens"]) == (
        "finish_now",
        stage.tokens("I think"),
    )
