"""Efforts and `auto` over HTTP: the calibrated curve decides, in every dialect and both arms."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from ponder.errors import SetupError
from ponder.experiment.ledger import Ledger
from ponder.server import savings
from ponder.thought.budget import EFFORT_TOKENS

from .conftest import Running, Serve

ENDLESS = "thinking and thinking " * 400  # no end of a sentence, where a cut could be early
KEY = "a key of sixteen"
TASKS = {
    "sums": {0: 0.1, 16: 0.2, 32: 0.9, 64: 0.9, -1: 0.9},
    "roots": {0: 0.1, 16: 0.1, 32: 0.1, 64: 0.6, -1: 0.9},
    "names": {0: 0.9, 16: 0.9, 32: 0.9, 64: 0.9, -1: 0.9},
}
CHAT = {"messages": [{"role": "user", "content": "40 + 2?"}]}
BODIES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": CHAT,
    "/v1/completions": {"prompt": "40 + 2?", "ponder": {"thinking": "open"}},
    "/v1/responses": {"input": "40 + 2?"},
    "/v1/messages": {**CHAT, "max_tokens": 500},
}


@pytest.fixture
def running(serve: Serve) -> Running:
    return serve(ENDLESS, "ok", tasks=TASKS)


def asked(running: Running, path: str, **fields: Any) -> Any:
    """The body of a reply, whole."""
    body = {**BODIES[path], **fields}
    body["ponder"] = {**BODIES[path].get("ponder", {}), **fields.get("ponder", {})}
    return httpx.post(f"{running.url}{path}", json=body).json()


def report(running: Running, path: str, **fields: Any) -> dict[str, Any]:
    found = asked(running, path, **fields)
    holder = found["choices"][0] if "choices" in found else found
    told: dict[str, Any] = holder["ponder"]
    return told


@pytest.mark.parametrize("path", BODIES)
def test_auto_and_efforts_are_points_of_the_tasks_curve(running: Running, path: str) -> None:
    auto = report(running, path, budget="auto", ponder={"task": "sums"})
    assert (auto["budget_requested"], auto["budget_effective"]) == (32, 32)
    assert (auto["budget_source"], auto["end_cause"]) == ("auto", "budget")
    low = report(running, path, reasoning_effort="low", ponder={"task": "sums"})
    assert (low["budget_effective"], low["budget_source"]) == (32, "effort")
    word = report(running, path, reasoning_effort="auto", ponder={"task": "names"})
    assert (word["budget_requested"], word["end_cause"]) == (0, "disabled")


@pytest.mark.parametrize("path", BODIES)
def test_metadata_names_the_task_where_ponder_does_not(running: Running, path: str) -> None:
    for fields, budget in (
        ({"metadata": {"task": "names"}}, 0),
        ({"metadata": {"task": "names"}, "ponder": {"task": "sums"}}, 32),
    ):
        assert report(running, path, budget="auto", **fields)["budget_requested"] == budget
    unknown = report(running, path, budget="auto", metadata={"task": "poems"})
    assert unknown == {**unknown, "budget_requested": -1, "budget_source": unknown["budget_source"]}


@pytest.mark.parametrize("path", BODIES)
def test_a_task_that_nobody_calibrated_is_refused(running: Running, path: str) -> None:
    error = asked(running, path, budget=9, ponder={"task": "poems"})["error"]
    assert (error["code"], error["param"]) == ("invalid_request", "ponder.task")
    assert "knows sums, roots, names; leave it out" in error["message"]


@pytest.mark.parametrize("path", BODIES)
def test_without_a_curve_auto_is_refused_and_efforts_keep_their_numbers(
    serve: Serve, path: str
) -> None:
    running = serve(ENDLESS, "ok")
    for field in ("thinking_budget", "reasoning_effort"):
        error = asked(running, path, **{field: "auto"})["error"]
        assert (error["code"], error["param"]) == ("auto_uncalibrated", field)
        assert "let `ponder calibrate MODEL` write one" in error["message"]
        assert error["message"].endswith("or send a number of tokens as thinking_token_budget")
    minimal = report(running, path, reasoning_effort="minimal", ponder={"task": "poems"})
    assert (minimal["budget_effective"], minimal["budget_source"]) == (128, "effort")


def test_auto_of_a_model_that_does_not_think_says_so(serve: Serve) -> None:
    running = serve("Just an answer.", thinks=False)
    error = asked(running, "/v1/chat/completions", budget="auto")["error"]
    assert (error["code"], error["param"]) == ("reasoning_unsupported", "budget")


def test_anthropics_budget_and_effort_read_the_curve(running: Running) -> None:
    enabled = {"type": "enabled", "budget_tokens": "auto"}
    auto = report(running, "/v1/messages", thinking=enabled, metadata={"task": "sums"})
    assert (auto["budget_effective"], auto["budget_source"]) == (32, "auto")
    adaptive = {"thinking": {"type": "adaptive"}, "output_config": {"effort": "low"}}
    low = report(running, "/v1/messages", **adaptive, metadata={"task": "roots", "user_id": "u"})
    assert (low["budget_effective"], low["budget_source"]) == (64, "effort")
    odd = report(running, "/v1/messages", budget=5, metadata={"task": 7})
    assert odd["budget_effective"] == 5


def test_the_templates_own_budget_may_be_auto(running: Running) -> None:
    chat, auto = "/v1/chat/completions", {"chat_template_kwargs": {"thinking_budget": "auto"}}
    found = report(running, chat, **auto, ponder={"task": "sums"})
    assert (found["budget_effective"], found["budget_source"]) == (32, "auto")
    assert asked(running, chat, **auto, budget=9)["error"]["code"] == "conflicting_budgets"


def test_a_ceiling_holds_for_what_a_curve_says(serve: Serve) -> None:
    running = serve(ENDLESS, "ok", tasks=TASKS, budget_ceiling=20)
    found = report(running, "/v1/chat/completions", budget="auto", ponder={"task": "sums"})
    assert (found["budget_requested"], found["budget_effective"]) == (32, 20)
    assert found["budget_source"] == "ceiling"


def test_the_models_page_tells_the_curve_of_all_tasks(running: Running, serve: Serve) -> None:
    can = httpx.get(f"{running.url}/v1/models").json()["data"][0]["ponder"]
    assert (can["auto_budget"], can["tasks"]) == (-1, ["sums", "roots", "names"])
    assert can["efforts"]["none"] == 0
    assert can["efforts"]["max"] == -1
    plain = httpx.get(f"{serve().url}/v1/models").json()["data"][0]["ponder"]
    assert (plain["auto_budget"], plain["tasks"], plain["efforts"]) == (None, [], EFFORT_TOKENS)


def test_the_curves_are_told_as_they_were_measured(running: Running, serve: Serve) -> None:
    found = httpx.get(f"{running.url}/v1/ponder/curves").json()
    assert (found["object"], found["model"], found["epsilon"]) == ("ponder.curves", "tiny", 0.01)
    assert [curve["task"] for curve in found["curves"]] == [None, *TASKS]
    sums = found["curves"][1]
    assert (sums["auto"]["budget"], sums["efforts"]["low"]) == (32, 32)
    assert [(at["budget"], at["accuracy"]) for at in sums["points"]] == list(TASKS["sums"].items())
    plain = httpx.get(f"{serve().url}/v1/ponder/curves").json()
    assert (plain["curves"], plain["epsilon"]) == ([], None)


def test_the_curves_need_the_key(serve: Serve) -> None:
    running = serve(tasks=TASKS, api_key="a key")
    assert httpx.get(f"{running.url}/v1/ponder/curves").status_code == 401


def user_in(running: Running, arm: str) -> str:
    names = (f"user {index}" for index in range(100))
    return next(n for n in names if running.service.planner.holdout.assign(f"user:{n}").arm == arm)


def test_a_held_out_conversation_has_no_limit_for_auto_and_keeps_its_effort(serve: Serve) -> None:
    running = serve(ENDLESS, "ok", tasks=TASKS, holdout=0.5, holdout_key=KEY, budget_ceiling=40)
    chat, sums = "/v1/chat/completions", {"task": "sums"}
    for arm, budget, source in (("policy", 32, "auto"), ("holdout", 40, "ceiling")):
        user = user_in(running, arm)
        auto = report(running, chat, budget="auto", ponder=sums, user=user)
        assert (auto["arm"], auto["budget_effective"], auto["budget_source"]) == (
            arm, budget, source,
        )  # fmt: skip
        effort = report(running, chat, reasoning_effort="low", ponder=sums, user=user)
        assert (effort["arm"], effort["budget_effective"]) == (arm, 32)
    never = {**sums, "holdout": "never"}
    user = user_in(running, "holdout")
    assert report(running, chat, budget="auto", ponder=never, user=user)["budget_effective"] == 32


def test_the_refusal_of_auto_is_the_same_in_both_arms(serve: Serve) -> None:
    running = serve(holdout=0.5, holdout_key=KEY)
    for arm in ("policy", "holdout"):
        error = asked(running, "/v1/chat/completions", budget="auto", user=user_in(running, arm))
        assert error["error"]["code"] == "auto_uncalibrated"


def test_the_operators_default_may_be_auto(serve: Serve) -> None:
    running = serve(ENDLESS, "ok", tasks=TASKS, default_budget="auto", holdout=0.5, holdout_key=KEY)
    chat, policy = "/v1/chat/completions", {"user": user_in(running, "policy")}
    found = report(running, chat, ponder={"task": "sums"}, **policy)
    assert (found["budget_requested"], found["budget_effective"]) == (None, 32)
    assert found["budget_source"] == "default"
    assert report(running, chat, metadata={"task": "names"}, **policy)["budget_effective"] == 0
    held = report(running, chat, ponder={"task": "sums"}, user=user_in(running, "holdout"))
    assert held["budget_source"] == "context"
    can = httpx.get(f"{running.url}/v1/models").json()["data"][0]["ponder"]
    assert can["default_budget"] == can["auto_budget"] == -1


def test_a_default_of_auto_needs_a_curve(serve: Serve) -> None:
    with pytest.raises(SetupError, match=r"--default-budget auto needs .*`ponder calibrate MODEL`"):
        serve(default_budget="auto")


def test_prompts_are_counted_under_a_default_of_auto(serve: Serve) -> None:
    running = serve(ENDLESS, "ok", tasks=TASKS, default_budget="auto")
    counted = httpx.post(f"{running.url}/tokenize", json=CHAT).json()["count"]
    answered = asked(running, "/v1/chat/completions")
    assert answered["usage"]["prompt_tokens"] == counted


def test_a_new_calibration_begins_the_savings_anew(serve: Serve) -> None:
    """The policy is another one, so its savings are not those of the last."""
    names = {
        json.dumps(running.service.ledger.experiment)
        for running in (serve(), serve(tasks=TASKS), serve(tasks={"sums": TASKS["sums"]}))
    }
    assert len(names) == 3


def test_a_calibration_on_many_tasks_is_named_briefly(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An index of Postgres holds at most 2,704 bytes a row."""
    named, made = list[str](), savings.Ledger

    def ledger(state: str, settings: str) -> Ledger:
        named.append(settings)
        return made(state, settings)

    monkeypatch.setattr(savings, "Ledger", ledger)
    serve(tasks={f"task {number}": TASKS["sums"] for number in range(60)})
    assert [len(settings) < 2000 for settings in named] == [True]
