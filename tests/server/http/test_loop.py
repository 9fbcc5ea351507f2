"""A thought that repeats itself is closed and answered, unless operator or request disagree."""

from __future__ import annotations

import re
from typing import Any

import httpx
import openai
import pytest

from ponder.thought.exits.loop import AFTER

from .conftest import Running, Serve

SENTENCE = "Wait, let me check that again. "
LOOP = "First I add 40 and 2. " + SENTENCE * 200
ANSWER = "The answer is 42."
BUDGET = 600


def report(running: Running, budget: int = BUDGET, **fields: object) -> dict[str, Any]:
    found: dict[str, Any] = running.ask(budget=budget, **fields).choices[0].ponder
    return found


@pytest.mark.parametrize("chunk_sizes", [(1,), (16,), (7, 300)])
def test_a_loop_is_closed_and_answered(serve: Serve, chunk_sizes: tuple[int, ...]) -> None:
    running = serve(LOOP, ANSWER, chunk_sizes=chunk_sizes)
    choice = running.ask(budget=BUDGET, n=2).choices[1]
    assert (choice.message.content, choice.finish_reason) == (ANSWER, "stop")
    thought = choice.message.reasoning
    assert LOOP.startswith(thought)
    assert thought.endswith(SENTENCE.rstrip())
    assert (choice.ponder["end_cause"], choice.ponder["answer_forced"]) == ("loop", True)
    assert AFTER < choice.ponder["thinking_tokens"] < AFTER + 2 * len(SENTENCE)


def test_a_stream_says_what_a_whole_reply_says(serve: Serve) -> None:
    running = serve(LOOP, ANSWER)
    whole = running.ask(budget=BUDGET)
    chunks = running.ask(budget=BUDGET, stream=True)
    deltas = [chunk.choices[0].delta for chunk in chunks]
    said = "".join(delta.content or "" for delta in deltas)
    thought = "".join(getattr(delta, "reasoning", None) or "" for delta in deltas)
    assert (said, thought) == (ANSWER, whole.choices[0].message.reasoning)
    assert chunks[-1].choices[0].ponder == whole.choices[0].ponder
    assert running.engine.unfinished() == 0


@pytest.mark.parametrize(
    ("operator", "request_says", "cause"),
    [
        (True, None, "loop"),
        (True, True, "loop"),
        (True, False, "budget"),
        (False, None, "budget"),
        (False, True, "loop"),
        (False, False, "budget"),
    ],
)
def test_the_request_has_the_last_word(
    serve: Serve, operator: bool, request_says: bool | None, cause: str
) -> None:
    running = serve(LOOP, ANSWER, loop_exit=operator)
    fields = {} if request_says is None else {"ponder": {"loop_exit": request_says}}
    assert report(running, **fields)["end_cause"] == cause


def test_the_least_thought_that_was_asked_for_is_thought(serve: Serve) -> None:
    found = report(serve(LOOP, ANSWER), ponder={"min_thinking_tokens": 400})
    assert found["end_cause"] == "loop"
    assert 400 < found["thinking_tokens"] < 400 + 2 * len(SENTENCE)


def test_answers_may_repeat_themselves(serve: Serve) -> None:
    choice = serve("I add.</think>" + LOOP).ask(budget=BUDGET).choices[0]
    assert choice.message.content == LOOP
    assert choice.ponder["end_cause"] == "natural"


def test_the_holdout_goes_without(serve: Serve) -> None:
    """It saves tokens: what that is worth is measured with the rest of the policy."""
    running = serve(LOOP, ANSWER, holdout=0.5, holdout_key="a key of sixteen")
    found: dict[str, str] = {}
    for name in (f"user {index}" for index in range(40)):
        arm = running.service.planner.holdout.assign(f"user:{name}").arm
        if arm not in found:
            found[arm] = report(running, user=name)["end_cause"]
            asked = report(running, user=name, ponder={"loop_exit": True})
            assert (asked["arm"], asked["end_cause"]) == (arm, "loop")
    assert found == {"policy": "loop", "holdout": "budget"}


def test_loops_are_counted(serve: Serve) -> None:
    running = serve(LOOP, ANSWER)
    metrics = httpx.get(f"{running.url}/metrics").text
    assert 'ponder_requests_total{arm="policy",end_cause="loop"} 0.0' in metrics
    report(running)
    metrics = httpx.get(f"{running.url}/metrics").text
    assert 'ponder_requests_total{arm="policy",end_cause="loop"} 1.0' in metrics
    assert 'ponder_truncations_total{arm="policy",cause="loop"} 1.0' in metrics


def test_near_repetitions_are_counted_and_close_nothing(serve: Serve) -> None:
    running = serve("".join(f"Is it {n}? No. " for n in range(30)) + "</think>The answer is 42.")
    counted = 'ponder_near_repetitions_total{{arm="policy"}} {:.1f}'
    assert counted.format(0) in httpx.get(f"{running.url}/metrics").text
    found = report(running)
    assert (found["end_cause"], found["thinking_tokens"] >= 256) == ("natural", True)
    assert counted.format(1) in httpx.get(f"{running.url}/metrics").text
    report(running, budget=255)
    assert counted.format(1) in httpx.get(f"{running.url}/metrics").text


@pytest.mark.parametrize("operator", [True, False])
def test_the_model_card_says_what_the_server_does(serve: Serve, operator: bool) -> None:
    running = serve(loop_exit=operator)
    (card,) = httpx.get(f"{running.url}/v1/models").json()["data"]
    assert card["ponder"]["loop_exit"] is operator


def test_a_model_without_thoughts_has_no_loops(serve: Serve) -> None:
    running = serve("42", thinks=False)
    (card,) = httpx.get(f"{running.url}/v1/models").json()["data"]
    assert card["ponder"]["loop_exit"] is False
    with pytest.raises(openai.BadRequestError, match=re.escape("ponder.loop_exit")):
        running.ask(ponder={"loop_exit": True})
    assert running.ask(ponder={"loop_exit": False}).choices[0].message.content == "42"
