"""One request, several thoughts, one budget and one answer, in every dialect."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from ponder.engine.scripted import Script
from ponder.engine.tokenizer import HFTokenizer, ModelFiles
from server.http.test_matrix import DIALECTS, events
from waiting import wait_until

from .conftest import Running, Serve
from .test_early_exit import metric, parts
from .test_tools import TEMPLATE

ROWS = ("thinking", "forced", "answer", "retry", "probe")
VOTES = {"method": "self_consistency", "n": 4, "answer": "number"}
ANSWERS = ("It is 7.", "The answer is 42.", "42", "It is 8.")
JUDGES = """
def likes_8(messages, answer):
    assert messages[-1]["role"] == "user"
    return float("8" in answer)
"""

Model = Callable[..., Script]


@pytest.fixture
def model(files: ModelFiles) -> Model:
    """A model whose n-th thought of a question is the n-th letter `length` times."""
    vocabulary = HFTokenizer(files.directory)
    (end,) = vocabulary.encode("</think>")
    letters = [vocabulary.encode(letter)[0] for letter in "bcdefghk"]

    def make(*answers: str, length: int = 30) -> Script:
        begun = [0]
        base = [10**9]

        def script(prompt: Sequence[int], _number: int) -> Iterator[int]:
            base[0] = min(base[0], len(prompt))
            said = [*prompt[base[0] :]]
            if not said:
                begun[0] += 1
            thought = said and said[0] in letters
            place = letters.index(said[0]) if thought else (begun[0] - 1) % len(answers)
            answer = [*vocabulary.encode(answers[place]), min(vocabulary.eos_token_ids)]
            whole = [*[letters[place]] * length, end, *answer]
            yield from answer if end in said else whole[len(said) :]

        return script

    return make


def strategy(reply: Any) -> dict[str, Any]:
    found: dict[str, Any] = reply.choices[0].ponder["strategy"]
    return found


# -- one answer --------------------------------------------------------------------------------


def test_every_dialect_gives_one_answer_and_counts_all(serve: Serve, model: Model) -> None:
    said = {}
    for name, ask in DIALECTS.items():
        for stream in (False, True):
            running = serve(script=model(*ANSWERS), hint=False)
            ponder = {"strategy": {**VOTES, "token_budget": 80}}
            said[name, stream] = ask(running.url, "text", 80, 400, stream, ponder=ponder)
    whole = said["chat", False]
    for (name, stream), one in said.items():
        assert one == whole, (name, stream)
    assert (whole.text, whole.thought) == ("The answer is 42.", "c" * 20)
    assert (whole.thinking, whole.completion) == (80, parts(whole.report))
    told = whole.report["strategy"]
    assert {key: told[key] for key in ("method", "n", "token_budget", "chosen", "copies")} == {
        "method": "self_consistency",
        "n": 4,
        "token_budget": 80,
        "chosen": 1,
        "copies": 0,
    }
    assert [row["answer"] for row in told["answers"]] == list(ANSWERS)
    assert [row["votes"] for row in told["answers"]] == [1, 2, 2, 1]
    for part in ROWS:
        rows = sum(row[f"{part}_tokens"] for row in told["answers"])
        assert rows == whole.report[f"{part}_tokens"]


def test_raw_prompts_think_together_too(serve: Serve, model: Model) -> None:
    body = {
        "prompt": "40 + 2?<think>\n",
        "ponder": {"strategy": {**VOTES, "token_budget": 80}},
        "max_tokens": 400,
    }
    replies = {}
    for stream in (False, True):
        running = serve(script=model(*ANSWERS))
        reply = httpx.post(f"{running.url}/v1/completions", json={**body, "stream": stream})
        if stream:
            chunks = [one["choices"][0] for one in events(reply)]
            replies[stream] = "".join(one["text"] for one in chunks), chunks[-1]["ponder"]
        else:
            (choice,) = reply.json()["choices"]
            replies[stream] = choice["text"], choice["ponder"]
            assert reply.json()["usage"]["completion_tokens"] == parts(choice["ponder"])
    assert replies[False] == replies[True]
    assert replies[False][0] == "The answer is 42."


def test_a_stream_says_nothing_before_the_answer_is_chosen(serve: Serve, model: Model) -> None:
    """All that it says is one thought's: no word of the others."""
    running = serve(script=model(*ANSWERS), hint=False)
    chunks = running.ask(ponder={"strategy": {**VOTES, "token_budget": 80}}, stream=True)
    reasoning = "".join(
        chunk.choices[0].delta.reasoning or ""
        for chunk in chunks[1:-1]
        if hasattr(chunk.choices[0].delta, "reasoning")
    )
    assert reasoning == "c" * 20
    assert {chunk.choices[0].index for chunk in chunks} == {0}


@pytest.mark.parametrize("stream", [False, True])
def test_the_same_seed_gives_the_same_answer(serve: Serve, model: Model, stream: bool) -> None:
    asked = {"method": "particles", "n": 4, "token_budget": 400, "interval": 32}
    reports = []
    for chunk_sizes in ((1,), (7, 3)):
        running = serve(script=model(*ANSWERS, length=200), hint=False, chunk_sizes=chunk_sizes)
        reply = running.ask(seed=5, ponder={"strategy": asked}, stream=stream)
        reports.append((reply[-1] if stream else reply).choices[0].ponder)
    assert reports[0] == reports[1]
    assert reports[0]["probe_tokens"] > 0


# -- verifiers ---------------------------------------------------------------------------------


@pytest.fixture
def judge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "strategy_judges.py").write_text(JUDGES)
    monkeypatch.chdir(tmp_path)
    return "strategy_judges:likes_8"


@pytest.mark.parametrize("asked", [{"method": "best_of"}, {"method": "particles", "interval": 32}])
def test_the_operators_verifier_chooses(
    serve: Serve, model: Model, judge: str, asked: dict[str, Any]
) -> None:
    running = serve(script=model(*ANSWERS, length=70), hint=False, verifier=judge)
    reply = running.ask(ponder={"strategy": {"n": 4, "token_budget": 400, **asked}})
    assert reply.choices[0].message.content == "It is 8."
    told = strategy(reply)
    assert told["answers"][told["chosen"]]["score"] == 1
    assert (told["copies"] == 3) == (asked["method"] == "particles")
    assert reply.usage.completion_tokens == parts(reply.choices[0].ponder)


def test_best_of_needs_a_verifier(serve: Serve, model: Model) -> None:
    running = serve(script=model(*ANSWERS))
    (card,) = httpx.get(f"{running.url}/v1/models").json()["data"]
    assert card["ponder"]["strategies"] == ["self_consistency", "particles"]
    with pytest.raises(openai.BadRequestError, match=re.escape("--verifier")) as caught:
        running.ask(ponder={"strategy": {"method": "best_of", "n": 2}})
    assert caught.value.param == "ponder.strategy"


# -- beside everything else --------------------------------------------------------------------


def test_the_budget_is_the_requests_by_any_name(serve: Serve, model: Model) -> None:
    running = serve(script=model(*ANSWERS), hint=False)
    named = running.ask(budget=80, ponder={"strategy": VOTES}).choices[0].ponder
    assert (named["budget_effective"], named["thinking_tokens"]) == (80, 80)
    with pytest.raises(openai.BadRequestError, match=r"strategy\.token_budget = 80") as caught:
        running.ask(budget=70, ponder={"strategy": {**VOTES, "token_budget": 80}})
    assert caught.value.code == "conflicting_budgets"


@pytest.mark.parametrize(
    ("settings", "source", "budget"),
    [
        ({"budget_ceiling": 40}, "ceiling", 40),
        ({"pool": ["tenant=640/1h"]}, "pool", 64),
        ({"default_budget": 48}, "default", 48),
    ],
)
def test_what_an_operator_limits_is_the_whole_budget(
    serve: Serve, model: Model, settings: dict[str, Any], source: str, budget: int
) -> None:
    running = serve(script=model(*ANSWERS), hint=False, **settings)
    asked = VOTES if source == "default" else {**VOTES, "token_budget": 100}
    report = running.ask(ponder={"strategy": asked}).choices[0].ponder
    assert (report["budget_source"], report["budget_effective"]) == (source, budget)
    assert report["thinking_tokens"] == budget // 4 * 4
    assert report["strategy"]["token_budget"] == budget


def test_load_sheds_the_whole_budget(serve: Serve, model: Model) -> None:
    running = serve(script=model(*ANSWERS), hint=False, shed_load="all")
    shedding = running.service.planner.shedding
    assert shedding is not None
    shedding.look = lambda: type(shedding._level)(step=3)  # type: ignore[method-assign]
    asked = {**VOTES, "token_budget": 100}
    report = running.ask(ponder={"strategy": asked}).choices[0].ponder
    assert report["budget_source"] == "load"
    assert report["thinking_tokens"] <= report["budget_effective"] < 100


def test_documents_are_equal_as_json(serve: Serve, model: Model) -> None:
    answers = ('{"n": 7, "m": 1}', '{"m": 2,\n "n": 42}', '{"n": 42, "m": 2}', '{"n": 42')
    running = serve(script=model(*answers), hint=False)
    asked = {**VOTES, "answer": "json", "token_budget": 80}
    reply = running.ask(response_format=SCHEMA, ponder={"strategy": asked})
    assert reply.choices[0].message.content == answers[1]
    assert [row["votes"] for row in strategy(reply)["answers"]] == [1, 2, 2, 0]
    assert reply.usage.completion_tokens == parts(reply.choices[0].ponder)
    assert any(sampling.grammar for _, sampling in running.engine.requests)


def test_a_deadline_closes_all_thoughts(serve: Serve, model: Model) -> None:
    running = serve(script=model(*ANSWERS, length=2000), hint=False, delay=0.002)
    asked = {"strategy": VOTES, "deadline_ms": 1500, "loop_exit": False}
    report = running.ask(ponder=asked).choices[0].ponder
    assert {row["end_cause"] for row in report["strategy"]["answers"]} == {"deadline"}
    assert report["deadline_met"] is not None


def test_a_loop_is_closed_whatever_the_other_thoughts_do(serve: Serve, files: ModelFiles) -> None:
    """Each thought has a loop exit of its own: what one repeats is no other's state."""
    vocabulary = HFTokenizer(files.directory)
    period = vocabulary.encode("I check it: 40 + 2 = 42, and 42 - 2 = 40, so it must hold. ")
    counts = vocabulary.encode(" ".join(map(str, range(2000))))
    (end,) = vocabulary.encode("</think>")

    def script(prompt: Sequence[int], number: int) -> Iterator[int]:
        if end in prompt:
            yield from [*vocabulary.encode("42"), min(vocabulary.eos_token_ids)]
        yield from period * 100 if number == 1 else counts

    running = serve(script=script, hint=False)
    asked = {"method": "self_consistency", "n": 2, "token_budget": 3000}
    rows = strategy(running.ask(max_completion_tokens=2000, ponder={"strategy": asked}))["answers"]
    assert rows[0]["end_cause"] != "loop"
    assert rows[1]["end_cause"] == "loop"
    assert rows[1]["thinking_tokens"] < 256 + 4 * len(period)


def test_histograms_count_each_thought_and_each_answer(serve: Serve, model: Model) -> None:
    running, arm = serve(script=model(*ANSWERS), hint=False), '{arm="policy"}'
    asked = {**VOTES, "token_budget": 80}
    report = running.ask(ponder={"strategy": asked}).choices[0].ponder
    for name in ("thinking_tokens", "answer_tokens"):
        assert metric(running, f"ponder_{name}_count{arm}") == 4
        assert metric(running, f"ponder_{name}_sum{arm}") == report[name]
    assert metric(running, 'ponder_thinking_tokens_bucket{arm="policy",le="20.0"}') == 4
    assert metric(running, f"ponder_budget_effective_tokens_sum{arm}") == 80


def test_limits_of_length_hold_for_each_thought(serve: Serve, model: Model) -> None:
    running = serve(script=model(*ANSWERS, length=2000), hint=False)
    reply = running.ask(max_completion_tokens=100, ponder={"strategy": VOTES})
    report = reply.choices[0].ponder
    assert report["end_cause"] == "length"
    for row in report["strategy"]["answers"]:
        assert sum(row[f"{part}_tokens"] for part in ROWS) <= 100


def test_no_thought_is_asked_for(serve: Serve, model: Model) -> None:
    """Answers alone are voted on, too."""
    running = serve(script=model(*ANSWERS), hint=False)
    report = running.ask(budget=0, ponder={"strategy": VOTES}).choices[0].ponder
    assert (report["thinking_tokens"], report["end_cause"]) == (0, "disabled")
    assert len(report["strategy"]["answers"]) == 4


def test_a_trained_model_is_told_its_share(serve: Serve, model: Model) -> None:
    running = serve(script=model(*ANSWERS))
    asked = {**VOTES, "token_budget": 320}
    report = running.ask(ponder={"strategy": asked}).choices[0].ponder
    assert (report["hint_budget"], report["budget_effective"]) == (80, 320)


def test_all_thoughts_take_places_and_are_counted(serve: Serve, model: Model) -> None:
    running = serve(script=model(*ANSWERS), hint=False, max_running=4)
    reply = running.ask(ponder={"strategy": {**VOTES, "token_budget": 80}})
    report = reply.choices[0].ponder
    arm = '{arm="policy"}'
    for part in ROWS:
        assert metric(running, f"ponder_{part}_tokens_total{arm}") == report[f"{part}_tokens"]
    assert metric(running, f"ponder_budget_violations_total{arm}") == 0
    assert metric(running, 'ponder_strategy_requests_total{method="self_consistency"}') == 1
    with pytest.raises(openai.BadRequestError, match="max-running"):
        running.ask(ponder={"strategy": {**VOTES, "n": 5}})


def test_finish_now_closes_them_all(serve: Serve, model: Model) -> None:
    running = serve(script=model(*ANSWERS, length=3000), hint=False, delay=0.002)
    url, name = f"{running.url}/v1/chat/completions", {"x-client-request-id": "mine"}
    body = {"messages": [{"role": "user", "content": "?"}], "ponder": {"strategy": VOTES}}
    replies: list[httpx.Response] = []
    asking = threading.Thread(
        target=lambda: replies.append(httpx.post(url, json=body, headers=name, timeout=60))
    )
    asking.start()
    while True:
        finished = httpx.post(f"{running.url}/v1/ponder/mine/finish")
        if finished.status_code == 202:
            break
    assert finished.json()["choices"] == [0]
    asking.join()
    rows = replies[0].json()["choices"][0]["ponder"]["strategy"]["answers"]
    assert {row["end_cause"] for row in rows} == {"finish_now"}


# -- what is refused ---------------------------------------------------------------------------

TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
SCHEMA = {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "integer"}}}


def test_more_thoughts_than_the_server_runs_are_refused_by_their_own_name(serve: Serve) -> None:
    """A request that sends no `n` is not told of one."""
    running = serve(max_running=3)
    for name, ask in {
        "chat/completions": {"messages": [{"role": "user", "content": "?"}]},
        "responses": {"input": "?"},
        "completions": {"prompt": "?<think>"},
    }.items():
        body = {**ask, "ponder": {"strategy": VOTES}}
        error = httpx.post(f"{running.url}/v1/{name}", json=body).json()["error"]
        assert error["param"] == "ponder.strategy"
        assert error["message"].startswith("ponder.strategy.n is 4, but this server generates at")
        assert error["message"].endswith("lower ponder.strategy.n")


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"n": 2}, "leave n out"),
        ({"response_format": SCHEMA, "method": "particles"}, "leave response_format out"),
        ({"logprobs": True}, "log probabilities"),
        ({"temperature": 0}, "raise temperature"),
        ({"top_k": 1}, "raise temperature"),
        ({"ponder": {"early_exit": {"method": "agreement"}}}, "leave ponder.early_exit out"),
        ({"ponder": {"grace_tokens": 8}}, "leave ponder.grace_tokens out"),
        ({"ponder": {"min_thinking_tokens": 30}, "budget": 80}, "80 / 4 thoughts"),
    ],
)
def test_what_makes_no_sense_beside_it_is_refused(
    serve: Serve, model: Model, more: dict[str, Any], said: str
) -> None:
    running = serve(script=model(*ANSWERS))
    asked = {**VOTES, "method": more.pop("method", "self_consistency")}
    options = {"strategy": asked, **more.pop("ponder", {})}
    with pytest.raises(openai.BadRequestError) as caught:
        running.ask(ponder=options, **more)
    assert said in str(caught.value), caught.value


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"method": "luck", "n": 2}, "best_of"),
        ({"method": "self_consistency"}, "required"),
        ({"method": "self_consistency", "n": 1}, "at least 2"),
        ({"method": "self_consistency", "n": 65}, "at most 64"),
        ({"method": "self_consistency", "n": 2, "interval": 64}, "means nothing to method"),
        ({"method": "particles", "n": 2, "interval": 31}, "at least 32"),
        ({"method": "particles", "n": 2, "token_budget": 0}, "at least 1"),
    ],
)
def test_what_means_nothing_is_refused(serve: Serve, asked: dict[str, Any], said: str) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        serve().ask(ponder={"strategy": asked})
    assert said in str(caught.value), caught.value


def test_tools_have_no_votes(serve: Serve) -> None:
    running = serve("42", template=TEMPLATE)
    with pytest.raises(openai.BadRequestError, match="calls have no votes"):
        running.ask(tools=[TOOL], ponder={"strategy": VOTES})
    with pytest.raises(openai.BadRequestError, match="does not think"):
        serve("42", thinks=False).ask(ponder={"strategy": VOTES})


def test_several_prompts_have_an_answer_each(serve: Serve) -> None:
    body = {"prompt": ["1<think>", "2<think>"], "ponder": {"strategy": VOTES}}
    reply = httpx.post(f"{serve('42').url}/v1/completions", json=body)
    assert (reply.status_code, "request of its own" in reply.text) == (400, True)


def test_a_client_that_leaves_ends_them_all(serve: Serve, model: Model) -> None:
    running = serve(script=model(*ANSWERS, length=3000), hint=False, delay=0.002)
    body = {"messages": [{"role": "user", "content": "?"}], "ponder": {"strategy": VOTES}}
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{running.url}/v1/chat/completions", json=body, timeout=0.5)
    left(running)


def left(running: Running) -> None:
    wait_until(lambda: running.engine.unfinished() == 0 and running.service.running == 0)
    wait_until(lambda: metric(running, 'ponder_unfinished_tokens_total{arm="policy"}') > 0)
