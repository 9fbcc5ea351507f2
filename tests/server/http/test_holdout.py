"""The two arms over HTTP: who is held out, and what that changes."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from pydantic import ValidationError

from ponder.server.settings import Settings

from .conftest import Running, Serve

ENDLESS = "thinking and thinking " * 400  # no end of a sentence, where a cut could be early
KEY = "a key of sixteen"


@pytest.fixture
def running(serve: Serve) -> Running:
    return serve(ENDLESS, "ok", holdout=0.5, holdout_key=KEY, default_budget=9, budget_ceiling=40)


def user_in(running: Running, arm: str) -> str:
    """A user of whom the key makes a member of `arm`."""
    names = (f"user {index}" for index in range(100))
    return next(n for n in names if running.service.planner.holdout.assign(f"user:{n}").arm == arm)


def report(running: Running, arm: str, **fields: object) -> dict[str, Any]:
    found: dict[str, Any] = running.ask(user=user_in(running, arm), **fields).choices[0].ponder
    assert found["arm"] == arm
    return found


def test_the_policy_arm_has_the_default_budget(running: Running) -> None:
    policy = report(running, "policy")
    assert (policy["budget_source"], policy["thinking_tokens"]) == ("default", 9)


def test_a_held_out_conversation_has_the_ceilings_and_no_default(running: Running) -> None:
    holdout = report(running, "holdout")
    assert (holdout["budget_source"], holdout["thinking_tokens"]) == ("ceiling", 40)


@pytest.mark.parametrize("arm", ["policy", "holdout"])
@pytest.mark.parametrize("fields", [{"budget": 5}, {"budget": 0}, {"reasoning_effort": "none"}])
def test_what_a_client_asks_for_is_kept_in_both_arms(
    running: Running, arm: str, fields: dict[str, object]
) -> None:
    found = report(running, arm, **fields)
    assert found["budget_effective"] == found["budget_requested"]


def test_opting_out_keeps_the_policy_and_the_arm_that_was_drawn(running: Running) -> None:
    """Intention to treat: whoever leaves is counted where the draw put them."""
    never = report(running, "holdout", ponder={"holdout": "never"})
    assert (never["budget_source"], never["thinking_tokens"]) == ("default", 9)


def test_a_stream_names_its_arm(running: Running) -> None:
    chunks = running.ask(stream=True, user=user_in(running, "holdout"))
    assert chunks[-1].choices[0].ponder["arm"] == "holdout"


def test_header_and_scope_name_conversations_too(running: Running) -> None:
    holdout = running.service.planner.holdout
    url = f"{running.url}/v1/chat/completions"
    body = {"messages": [{"role": "user", "content": "hi"}], "budget": 3}
    for name in map(str, range(8)):
        asked = {**body, "ponder": {"scope": name}}
        scoped = httpx.post(url, json=asked).json()["choices"][0]["ponder"]["arm"]
        assert scoped == holdout.assign(f"scope:{name}").arm
        headers = {"x-ponder-conversation": name}
        headed = httpx.post(url, json=asked, headers=headers).json()["choices"][0]["ponder"]["arm"]
        assert headed == holdout.assign(f"header:{name}").arm


def test_requests_that_name_nothing_are_drawn_one_by_one(running: Running) -> None:
    arms = [running.ask(budget=0).choices[0].ponder["arm"] for _ in range(40)]
    assert set(arms) == {"policy", "holdout"}  # by chance one arm only: 1 in 2^39


def test_a_holdout_without_a_key_is_refused() -> None:
    with pytest.raises(ValidationError, match="PONDER_HOLDOUT_KEY"):
        Settings(holdout=0.05)


@pytest.mark.parametrize("fields", [{"holdout": 1.0}, {"holdout": -0.1}, {"holdout_key": "short"}])
def test_shares_and_keys_have_bounds(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Settings(**{"holdout_key": KEY, **fields})


def test_a_held_out_conversation_is_hinted_only_where_it_asks(serve: Serve) -> None:
    running = serve(ENDLESS, "ok", holdout=0.5, holdout_key=KEY, default_budget=80)
    assert report(running, "policy")["hint_budget"] == 80
    assert report(running, "holdout", budget=80)["hint_budget"] is None
    asked = report(running, "holdout", budget=80, ponder={"hint": True})
    assert asked["hint_budget"] == 80
