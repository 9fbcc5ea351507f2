"""Deadlines over HTTP. Servers are told a pace, so that no test is a race with the machine."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import openai
import pytest

from ponder.protocol.deadline import HEADER
from ponder.thought.pace import Pace
from waiting import PATIENCE, wait_until

from .conftest import Running, Serve
from .test_holdout import KEY, user_in
from .test_savings import series
from .test_tools import TEMPLATE

ENDLESS = "thinking and thinking " * 4000  # no end of a sentence, and no loop that is looked for
ANSWER = "The answer is 42."
AGES = 60_000  # milliseconds: no machine is so slow
NEVER = 10**9  # tokens
QUESTION = [{"role": "user", "content": "What is 40 + 2?"}]
BODIES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": QUESTION},
    "/v1/completions": {"prompt": "What is 40 + 2?<think>\n", "max_tokens": 3500},
    "/v1/responses": {"input": "What is 40 + 2?"},
    "/v1/messages": {
        "max_tokens": 3500,
        "messages": QUESTION,
        "thinking": {"type": "enabled", "budget_tokens": 3000},
    },
}


class Claimed(Pace):
    """An engine whose answers take so many seconds, whatever it measures."""

    def __init__(self, seconds: float, gap: float = 0.0) -> None:
        super().__init__()
        self._seconds = seconds
        self._gap = gap

    def seconds(self, tokens: int, now: float, *, continues: bool = False) -> float:
        return self._seconds

    def tokens(self, seconds: float, now: float) -> int | None:
        return max(0, int(seconds / self._gap)) if self._gap else None


class ClosesAfter(Pace):
    """What is due in `AGES` has to be closed once the engine has given so many tokens."""

    def __init__(self, tokens: int) -> None:
        super().__init__()
        self.left = tokens
        self._due = time.perf_counter() + AGES / 1000  # before what is asked later is due

    def first(self, seconds: float, now: float, *, continues: bool = False) -> None:
        self.left -= 1

    def later(self, seconds: float, tokens: int, now: float) -> None:
        self.left -= tokens

    def seconds(self, tokens: int, now: float, *, continues: bool = False) -> float:
        return AGES / 2000 if self.left <= 0 else (self._due - now) / 2 - 0.02


def slow(serve: Serve, pace: Pace | None = None, **settings: Any) -> Running:
    """A server whose model thinks for ever, a token each few milliseconds."""
    settings = {"delay": 0.004, "loop_exit": False, **settings}
    running = serve(ENDLESS, ANSWER, **settings)
    running.service.planner.pace = pace or ClosesAfter(20)
    return running


def post(running: Running, path: str, headers: Any = None, **fields: Any) -> httpx.Response:
    body = {**BODIES[path], **fields}
    return httpx.post(f"{running.url}{path}", json=body, headers=headers, timeout=PATIENCE)


def reports(reply: httpx.Response) -> list[dict[str, Any]]:
    """The `ponder` blocks of a reply in any dialect, whole or streamed."""
    assert reply.status_code == 200, reply.text
    lines = [line.removeprefix("data: ") for line in reply.text.splitlines()]
    parts = [json.loads(line) for line in lines if line.startswith("{")]
    return list(_found(parts))


def _found(part: Any) -> Iterator[dict[str, Any]]:
    for name, value in part.items() if isinstance(part, dict) else ():
        if name == "ponder" and value is not None and "end_cause" in value:
            yield value
        else:
            yield from _found(value)
    for value in part if isinstance(part, list) else ():
        yield from _found(value)


def report(running: Running, **fields: Any) -> dict[str, Any]:
    found: dict[str, Any] = running.ask(**fields).choices[0].ponder
    return found


# -- in time -----------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", BODIES)
def test_every_dialect_closes_in_time(serve: Serve, path: str, stream: bool) -> None:
    running = slow(serve)
    for headers, options in (
        ({HEADER: str(AGES)}, {}),
        ({}, {"ponder": {"deadline_ms": AGES}}),
        ({HEADER: str(AGES)}, {"ponder": {"deadline_ms": AGES}}),
    ):
        running.service.planner.pace = ClosesAfter(20)
        found = reports(post(running, path, headers, stream=stream, **options))[-1]
        assert (found["end_cause"], found["deadline_met"]) == ("deadline", True)
        assert found["answer_forced"] and found["answer_tokens"] > 0
        assert 20 <= found["thinking_tokens"] < 3000
    assert running.engine.unfinished() == 0


@pytest.mark.parametrize("path", BODIES)
def test_without_a_deadline_nothing_is_said_of_one(serve: Serve, path: str) -> None:
    running = serve()
    for stream in (False, True):
        assert reports(post(running, path, stream=stream))[-1]["deadline_met"] is None


@pytest.mark.parametrize("stream", [False, True])
def test_each_choice_is_in_time_and_all_tokens_are_counted(serve: Serve, stream: bool) -> None:
    more = {"stream_options": {"include_usage": True}} if stream else {}
    running = slow(serve)
    reply = running.ask(n=3, stream=stream, ponder={"deadline_ms": AGES}, **more)
    if stream:
        usage = reply[-1].usage
        said = [c.choices[0].ponder for c in reply if c.choices and c.choices[0].finish_reason]
    else:
        usage, said = reply.usage, [choice.ponder for choice in reply.choices]
    assert [(one["end_cause"], one["deadline_met"]) for one in said] == [("deadline", True)] * 3
    parts = ("thinking", "forced", "answer", "retry", "probe")
    spent = sum(one[f"{part}_tokens"] for one in said for part in parts)
    assert usage.completion_tokens == spent


def test_a_queue_counts(serve: Serve) -> None:
    """The first request gets no token; the thought is closed before it, and answered after all."""
    pace = ClosesAfter(NEVER)
    running = slow(serve, pace)
    running.engine.hang()
    with ThreadPoolExecutor(1) as client:
        asking = client.submit(running.ask, ponder={"deadline_ms": AGES})
        wait_until(lambda: len(running.engine.requests) == 1)
        pace.left = 0
        wait_until(lambda: len(running.engine.requests) == 2)
        running.loop.call_soon_threadsafe(running.engine.go_on)
        choice = asking.result().choices[0]
    assert (choice.message.content, choice.ponder["end_cause"]) == (ANSWER, "deadline")
    assert (choice.ponder["thinking_tokens"], choice.ponder["deadline_met"]) == (0, True)


def test_an_answer_that_comes_late_is_whole_and_said_to_be_late(serve: Serve) -> None:
    running = serve(ENDLESS, ANSWER, delay=0.2, loop_exit=False)  # nine tokens of answer
    choice = running.ask(ponder={"deadline_ms": 1000}).choices[0]
    assert (choice.message.content, choice.finish_reason) == (ANSWER, "stop")
    assert (choice.ponder["end_cause"], choice.ponder["deadline_met"]) == ("deadline", False)
    wait_until(lambda: sum(series(running, "ponder_requests_total").values()) == 1)
    assert series(running, "ponder_deadline_total") == {'met="true"': 0, 'met="false"': 1}


def test_who_has_no_deadline_is_not_counted(serve: Serve) -> None:
    running = serve()
    running.ask()
    running.ask(ponder={"deadline_ms": AGES})
    wait_until(lambda: sum(series(running, "ponder_requests_total").values()) == 2)
    assert series(running, "ponder_deadline_total") == {'met="true"': 1, 'met="false"': 0}


def test_no_deadline_is_later_than_the_time_of_a_request(serve: Serve) -> None:
    """It would end with an error, and not with an answer."""
    running = slow(serve, request_timeout=AGES / 1000)
    assert report(running, ponder={"deadline_ms": 86_400_000})["end_cause"] == "deadline"


# -- beside other limits -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "cause"),
    [
        ({"budget": 5}, "budget"),
        ({"budget": 0}, "disabled"),
        ({"max_completion_tokens": 40}, "length"),
        ({"budget": 3000}, "deadline"),
        ({"budget": 3000, "ponder": {"min_thinking_tokens": 2000}}, "deadline"),
        ({"budget": 3000, "ponder": {"grace_tokens": 3000}}, "deadline"),
        ({"budget": 3000, "presence_penalty": 0.5}, "deadline"),
    ],
)
def test_what_comes_first_is_the_cause(serve: Serve, fields: dict[str, Any], cause: str) -> None:
    ponder = {"deadline_ms": AGES, **fields.pop("ponder", {})}
    pace = ClosesAfter(20 if cause == "deadline" else NEVER)
    found = report(slow(serve, pace), ponder=ponder, **fields)
    assert (found["end_cause"], found["deadline_met"]) == (cause, True)
    assert found["thinking_tokens"] <= found["budget_effective"]


def test_a_model_without_thoughts_has_deadlines(serve: Serve) -> None:
    running = serve("42", thinks=False)
    assert report(running, ponder={"deadline_ms": AGES})["deadline_met"] is True
    running.service.planner.pace = Claimed(99.0)
    with pytest.raises(openai.APIStatusError, match="deadline_ms"):
        running.ask(ponder={"deadline_ms": AGES})


@pytest.mark.parametrize(
    "fields",
    [
        {"response_format": {"type": "json_object"}},
        {"tools": [{"type": "function", "function": {"name": "weather"}}]},
    ],
)
def test_a_format_and_a_call_follow_a_thought_that_is_closed(
    serve: Serve, fields: dict[str, Any]
) -> None:
    running = slow(serve, template=TEMPLATE)
    found = report(running, ponder={"deadline_ms": AGES}, **fields)
    assert (found["end_cause"], found["deadline_met"]) == ("deadline", True)


def test_more_is_kept_for_a_format(serve: Serve) -> None:
    class Asked(Claimed):
        def seconds(self, tokens: int, now: float, *, continues: bool = False) -> float:
            asked.append(tokens)
            return 0.0

    asked: list[int] = []
    running = serve()
    expected = []
    for fields, tokens in (
        ({}, 256),
        ({"response_format": {"type": "json_object"}}, 1024),
        ({"max_completion_tokens": 100}, 25),
        ({"ponder": {"min_answer_tokens": 77}}, 77),
        ({"ponder": {"max_answer_tokens": 33}}, 33),
    ):
        running.service.planner.pace = Asked(0.0)  # one that has seen no answer
        asked.clear()
        report(running, **{**fields, "ponder": {"deadline_ms": AGES, **fields.get("ponder", {})}})
        expected.append((tokens, set(asked)))
    assert expected == [(tokens, {tokens}) for tokens, _ in expected]


# -- whose word it is --------------------------------------------------------------------------


@pytest.mark.parametrize("arm", ["policy", "holdout"])
def test_deadlines_hold_in_both_arms(serve: Serve, arm: str) -> None:
    running = slow(serve, holdout=0.5, holdout_key=KEY, default_deadline_ms=AGES)
    user = user_in(running, arm)
    for options in ({}, {"ponder": {"deadline_ms": AGES + 10}}):
        running.service.planner.pace = ClosesAfter(20)
        found = report(running, user=user, **options)
        assert (found["arm"], found["end_cause"]) == (arm, "deadline")


def test_a_request_has_the_last_word(serve: Serve) -> None:
    running = slow(serve, Claimed(400.0), default_deadline_ms=AGES)
    with pytest.raises(openai.APIStatusError, match="deadline_ms"):
        running.ask()
    assert report(running, budget=4, ponder={"deadline_ms": 500_000})["deadline_met"] is True


@pytest.mark.parametrize("operator", [None, 500])
def test_the_model_card_says_what_the_server_does(serve: Serve, operator: int | None) -> None:
    running = serve(default_deadline_ms=operator)
    (card,) = httpx.get(f"{running.url}/v1/models").json()["data"]
    assert card["ponder"]["default_deadline_ms"] == operator


def test_two_that_disagree_are_refused(serve: Serve) -> None:
    reply = post(serve(), "/v1/messages", {HEADER: "500"}, ponder={"deadline_ms": 400})
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, "ponder.deadline_ms")


@pytest.mark.parametrize("path", BODIES)
@pytest.mark.parametrize(
    ("headers", "options", "param"),
    [
        ({HEADER: "soon"}, {}, HEADER),
        ({HEADER: "0"}, {"ponder": {"deadline_ms": 5}}, HEADER),
        ({}, {"ponder": {"deadline_ms": 0}}, "ponder.deadline_ms"),
        ({}, {"ponder": {"deadline_ms": "100"}}, "ponder.deadline_ms"),
    ],
)
def test_what_is_no_number_of_milliseconds_is_refused(
    serve: Serve, path: str, headers: Any, options: Any, param: str
) -> None:
    reply = post(serve(), path, headers, **options)
    error = reply.json()["error"]
    assert (reply.status_code, error["code"]) == (400, "invalid_request")
    assert error["param"] == param


# -- refused -----------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", BODIES)
def test_what_cannot_be_answered_in_time_is_refused_unspent(
    serve: Serve, path: str, stream: bool
) -> None:
    running = slow(serve, Claimed(AGES))
    for headers, options, param in (
        ({HEADER: "5000"}, {}, HEADER),
        ({}, {"ponder": {"deadline_ms": 5000, "min_answer_tokens": 24}}, "ponder.deadline_ms"),
    ):
        reply = post(running, path, headers, stream=stream, **options)
        error = reply.json()["error"]
        assert (reply.status_code, error["code"]) == (408, "deadline_unreachable")
        assert (error["param"], reply.headers["x-should-retry"]) == (param, "false")
        assert f"of {param}" in error["message"] and "min_answer_tokens" in error["message"]
    assert running.engine.requests == []
    assert running.service.running == 0
    (count,) = (
        value
        for labels, value in series(running, "ponder_errors_total").items()
        if "deadline_unreachable" in labels
    )
    assert count == 2


def test_what_takes_nearly_all_the_time_is_answered_without_a_thought(serve: Serve) -> None:
    running = slow(serve, Claimed(AGES / 1000 * 0.9))
    found = report(running, ponder={"deadline_ms": AGES})
    assert (found["end_cause"], found["thinking_tokens"]) == ("deadline", 0)
    assert len(running.engine.requests) == 1


def test_a_server_that_has_measured_nothing_refuses_nobody(serve: Serve) -> None:
    running = serve(ENDLESS, ANSWER, delay=0.01, loop_exit=False)
    assert report(running, ponder={"deadline_ms": 3000})["end_cause"] == "deadline"


def test_the_time_runs_from_the_first_byte(serve: Serve) -> None:
    def trickle() -> Iterator[bytes]:
        body = json.dumps({"messages": QUESTION, "ponder": {"deadline_ms": 150}}).encode()
        yield body[:9]
        time.sleep(0.2)
        yield body[9:]

    running = serve()
    reply = httpx.post(
        f"{running.url}/v1/chat/completions",
        content=trickle(),
        headers={"content-type": "application/json"},
    )
    assert (reply.status_code, reply.json()["error"]["code"]) == (408, "deadline_unreachable")
    assert "was over before the request was read" in reply.json()["error"]["message"]


def test_counting_tokens_takes_no_time(serve: Serve) -> None:
    running = serve()
    running.service.planner.pace = Claimed(AGES)
    body = {"messages": QUESTION}
    url = f"{running.url}/v1/messages/count_tokens"
    reply = httpx.post(url, json=body, headers={HEADER: "1"})
    assert reply.status_code == 200


# -- hints -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("room", "fields", "told"),
    [
        (100, {}, 80),
        (100, {"budget": -1}, 80),
        (200, {"budget": -1}, 200),
        (201, {"budget": -1}, None),  # nobody wants so short a thought
        (5000, {}, None),
        (100, {"budget": 2000}, 80),
        (100, {"budget": 41}, 40),
        (5000, {"budget": 100}, 80),
        (39, {"budget": 100}, None),
        (0, {}, None),
        (100, {"ponder": {"hint": False}}, None),
        (None, {"budget": 100}, 80),
        (None, {}, None),
    ],
)
def test_the_model_is_told_what_fits(
    serve: Serve, room: int | None, fields: dict[str, Any], told: int | None
) -> None:
    """The largest trained budget within the time, where that is less than the budget."""

    class Roomy(Claimed):
        def tokens(self, seconds: float, now: float) -> int | None:
            return room

    running = serve()
    running.service.planner.pace = Roomy(0.0)
    ponder = {"deadline_ms": AGES, **fields.pop("ponder", {})}
    found = report(running, ponder=ponder, **fields)
    assert found["hint_budget"] == told
    asked = fields.get("budget")
    if asked is not None and asked > 0:
        assert found["budget_effective"] == asked  # the cap stays
