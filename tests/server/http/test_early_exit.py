"""A thought is probed beside itself, closed when its probes agree, and every token is billed."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import httpx
import openai
import pytest

from ponder.engine.protocol import EngineError
from ponder.engine.scripted import Script
from ponder.engine.tokenizer import HFTokenizer, ModelFiles

from .conftest import Running, Serve

STEPS = "".join(f"Step {n}: I add {n} and look again. " for n in range(40))
BUDGET = 600
AGREE = {"method": "agreement", "interval": 32, "window": 2, "max_probe_tokens": 16}
ANSWERS = ["The answer is 41.", "The answer is 42.", "The answer is 42."]
PARTS = ("thinking", "forced", "answer", "retry", "probe")

Model = Callable[..., Script]


@pytest.fixture
def model(files: ModelFiles) -> Model:
    """A model that thinks in steps, and once it is closed says one answer after the other."""
    vocabulary = HFTokenizer(files.directory)
    (end,) = vocabulary.encode("</think>")

    def make(*answers: str, thought: str = STEPS, broken: int = 0) -> Script:
        left = [broken]
        said = {}

        def script(prompt: Sequence[int], _number: int) -> Iterator[int]:
            if end not in prompt:
                yield from vocabulary.encode(thought + "</think>The answer is 7.")
            elif left[0]:
                left[0] -= 1
                raise EngineError("this probe is none of mine")
            else:
                first = said.setdefault(tuple(prompt), len(said))
                yield from vocabulary.encode(answers[min(first, len(answers) - 1)])
            yield min(vocabulary.eos_token_ids)

        return script

    return make


def metric(running: Running, line: str) -> float:
    found = re.search(rf"^{re.escape(line)} (\S+)$", httpx.get(f"{running.url}/metrics").text, re.M)
    assert found, line
    return float(found[1])


def parts(report: dict[str, Any]) -> int:
    return sum(report[f"{part}_tokens"] for part in PARTS)


@pytest.mark.parametrize("chunk_sizes", [(1,), (32,), (7, 60)])
def test_answers_that_agree_close_the_thought(
    serve: Serve, model: Model, chunk_sizes: tuple[int, ...]
) -> None:
    running = serve(early_exit_shadow=0, script=model(*ANSWERS), chunk_sizes=chunk_sizes)
    reply = running.ask(budget=BUDGET, ponder={"early_exit": AGREE})
    (choice,) = reply.choices
    assert choice.message.content == "The answer is 42."
    assert (choice.ponder["end_cause"], choice.ponder["answer_forced"]) == ("agreement", True)
    assert choice.ponder["probe_tokens"] > 0
    assert reply.usage.completion_tokens == parts(choice.ponder)
    assert running.engine.unfinished() == 0
    assert metric(running, 'ponder_truncations_total{arm="policy",cause="agreement"}') == 1
    counted = metric(running, 'ponder_probe_tokens_total{arm="policy"}')
    assert counted == choice.ponder["probe_tokens"]


def test_every_choice_has_probes_of_its_own(serve: Serve, model: Model) -> None:
    running = serve(early_exit_shadow=0, script=model("The answer is 42."))
    reply = running.ask(budget=BUDGET, n=3, ponder={"early_exit": AGREE})
    assert {choice.ponder["end_cause"] for choice in reply.choices} == {"agreement"}
    assert reply.usage.completion_tokens == sum(parts(choice.ponder) for choice in reply.choices)


@pytest.mark.parametrize("stream", [False, True])
def test_a_stream_is_billed_as_a_whole_reply_is(serve: Serve, model: Model, stream: bool) -> None:
    running = serve(early_exit_shadow=0, script=model("The answer is 42."))
    reply = running.ask(
        budget=BUDGET,
        ponder={"early_exit": AGREE},
        stream=stream,
        **({"stream_options": {"include_usage": True}} if stream else {}),
    )
    report = (reply[-2] if stream else reply).choices[0].ponder
    usage = (reply[-1] if stream else reply).usage
    assert (report["end_cause"], usage.completion_tokens) == ("agreement", parts(report))


def test_other_dialects_do_the_same(serve: Serve, model: Model) -> None:
    running = serve(early_exit_shadow=0, script=model("The answer is 42."))
    options = {"thinking_token_budget": BUDGET, "ponder": {"early_exit": AGREE}}
    said = [{"role": "user", "content": "40 + 2?"}]
    chat = {"model": "tiny", "messages": said, **options}
    bodies = {
        "/v1/messages": {**chat, "max_tokens": 900},
        "/v1/responses": {"model": "tiny", "input": "40 + 2?", **options},
        "/v1/completions": {"model": "tiny", "prompt": "40 + 2?<think>\n", **options},
    }
    for path, body in bodies.items():
        reply = httpx.post(f"{running.url}{path}", json=body).json()
        text = str(reply)
        assert "'end_cause': 'agreement'" in text, (path, text)
        usage = reply["usage"]
        spent = usage.get("completion_tokens", usage.get("output_tokens"))
        found = {part: int(re.findall(rf"'{part}_tokens': (\d+)", text)[-1]) for part in PARTS}
        assert found["probe"] > 0
        assert spent == sum(found.values()), path


# -- interim answers ---------------------------------------------------------------------------


def test_interim_answers_are_shown_to_who_asks(serve: Serve, model: Model) -> None:
    running = serve(early_exit_shadow=0, script=model(*ANSWERS))
    early = {**AGREE, "answer": "number", "interim": True}
    chunks = running.ask(budget=BUDGET, ponder={"early_exit": early}, stream=True)
    shown = [chunk.ponder for chunk in chunks if getattr(chunk, "ponder", None)]
    assert [(one["type"], one["index"], one["answer"], one["agreement"]) for one in shown] == [
        ("interim", 0, "The answer is 41.", 1),
        ("interim", 0, "The answer is 42.", 1),
        ("interim", 0, "The answer is 42.", 2),
    ]
    assert [chunk.choices for chunk in chunks if getattr(chunk, "ponder", None)] == [[]] * 3
    places = [one["thinking_tokens"] for one in shown]
    assert places == sorted(set(places))
    silent = running.ask(budget=BUDGET, ponder={"early_exit": AGREE}, stream=True)
    assert not [chunk for chunk in silent if getattr(chunk, "ponder", None)]


def test_interim_answers_of_raw_prompts(serve: Serve, model: Model) -> None:
    running = serve(early_exit_shadow=0, script=model("The answer is 42."))
    body = {
        "model": "tiny",
        "prompt": "40 + 2?<think>\n",
        "thinking_token_budget": BUDGET,
        "ponder": {"early_exit": {**AGREE, "interim": True}},
        "stream": True,
    }
    text = httpx.post(f"{running.url}/v1/completions", json=body).text
    assert text.count('"choices": [], "ponder": {"type":"interim"') == 2


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/responses"])
def test_streams_without_such_an_event_refuse_them(serve: Serve, model: Model, path: str) -> None:
    said = {"input": "40 + 2?"} if "responses" in path else {"max_tokens": 900}
    body = {"model": "tiny", "thinking_token_budget": BUDGET, "stream": True, **said}
    if "messages" in path:
        body["messages"] = [{"role": "user", "content": "40 + 2?"}]
    body["ponder"] = {"early_exit": {**AGREE, "interim": True}}
    reply = httpx.post(f"{serve(script=model('42')).url}{path}", json=body)
    assert reply.status_code == 400
    assert "no event for interim answers" in reply.text


# -- what can go wrong -------------------------------------------------------------------------


def test_a_probe_that_the_engine_fails_fails_no_request(serve: Serve, model: Model) -> None:
    running = serve(early_exit_shadow=0, script=model("The answer is 42.", broken=1))
    choice = running.ask(budget=BUDGET, ponder={"early_exit": AGREE}).choices[0]
    assert (choice.message.content, choice.ponder["end_cause"]) == (
        "The answer is 42.",
        "agreement",
    )
    assert metric(running, 'ponder_probe_failures_total{arm="policy"}') == 1


@pytest.mark.parametrize(
    ("early", "said"),
    [
        ({"method": "luck"}, "agreement"),
        ({"method": "agreement", "interval": 31}, "32"),
        ({"method": "agreement", "window": 1}, "2"),
        ({"method": "agreement", "interval": 32, "max_probe_tokens": 64}, "raise interval"),
        ({"method": "agreement", "alpha": 0.5}, "alpha means nothing to method agreement"),
        ({"method": "entropy", "interim": True}, "interim means nothing to method entropy"),
        ({"method": "entropy"}, "names no answer_prefix"),
        ({"method": "agreement", "interim": True}, "stream the reply"),
        ({}, "method"),
    ],
)
def test_what_means_nothing_is_refused(serve: Serve, early: dict[str, Any], said: str) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        serve().ask(budget=BUDGET, ponder={"early_exit": early})
    assert said in str(caught.value)


def test_a_model_without_thoughts_has_none_to_close(serve: Serve) -> None:
    running = serve("42", thinks=False)
    with pytest.raises(openai.BadRequestError, match=re.escape("ponder.early_exit")):
        running.ask(ponder={"early_exit": AGREE})
    raw = {"model": "tiny", "prompt": "40 + 2 =", "ponder": {"early_exit": AGREE}}
    reply = httpx.post(f"{serve('42').url}/v1/completions", json=raw)
    assert (reply.status_code, "early_exit" in reply.text) == (400, True)


# -- exits that only watch ---------------------------------------------------------------------

SHADOWED = {"early_exit_shadow": 1.0}


def shadows(running: Running) -> tuple[float, float]:
    labels = '{arm="policy",cause="agreement"}'
    names = ("ponder_early_exit_shadow_total", "ponder_early_exit_disagreement_total")
    seen, other = (metric(running, f"{name}{labels}") for name in names)
    return seen, other


@pytest.mark.parametrize(("answer", "agrees"), [("The answer is 7.", True), ("It is 8.", False)])
def test_a_shadowed_exit_lets_the_thought_go_on(
    serve: Serve, model: Model, answer: str, agrees: bool
) -> None:
    running = serve(script=model(answer), **SHADOWED)
    early = {**AGREE, "answer": "number"}
    reply = running.ask(budget=BUDGET, ponder={"early_exit": early})
    (choice,) = reply.choices
    report = choice.ponder
    assert (report["end_cause"], choice.message.content) == ("natural", "The answer is 7.")
    shadow = report["shadow"]
    assert (shadow["end_cause"], shadow["agrees"]) == ("agreement", agrees)
    assert 0 < shadow["thinking_tokens"] < report["thinking_tokens"]
    assert reply.usage.completion_tokens == parts(report)
    assert shadows(running) == (1, not agrees)


def test_who_is_not_drawn_has_an_exit_that_closes(serve: Serve, model: Model) -> None:
    """The draw is of the conversation, and stays."""
    running = serve(script=model("The answer is 7."), early_exit_shadow=0.5)
    causes: dict[str, set[str]] = {}
    for user in [f"user {number}" for number in range(12)] * 2:
        report = running.ask(budget=BUDGET, user=user, ponder={"early_exit": AGREE}).choices[0]
        causes.setdefault(user, set()).add(report.ponder["end_cause"])
    assert {len(found) for found in causes.values()} == {1}
    assert {cause for found in causes.values() for cause in found} == {"natural", "agreement"}
    drawn = next(user for user, found in causes.items() if found == {"natural"})
    out = {"early_exit": AGREE, "holdout": "never"}
    report = running.ask(budget=BUDGET, user=drawn, ponder=out).choices[0].ponder
    assert (report["end_cause"], report["shadow"]) == ("agreement", None)


def test_a_thought_that_ends_before_its_exit_has_no_shadow(serve: Serve, model: Model) -> None:
    running = serve(script=model("1", "2", "3", "4", thought=STEPS[:200]), **SHADOWED)
    report = running.ask(budget=BUDGET, ponder={"early_exit": AGREE}).choices[0].ponder
    assert (report["end_cause"], report["shadow"]) == ("natural", None)
    assert shadows(running) == (0, 0)


# -- beside everything else --------------------------------------------------------------------


def test_an_entropy_that_no_longer_moves_closes_the_thought(serve: Serve, model: Model) -> None:
    running = serve(early_exit_shadow=0, script=model(" 42."))
    early = {"method": "entropy", "interval": 32, "prefix": "The answer is"}
    reply = running.ask(budget=BUDGET, ponder={"early_exit": early})
    report = reply.choices[0].ponder
    assert (report["end_cause"], report["probe_tokens"]) == ("entropy", 3)
    assert reply.usage.completion_tokens == parts(report)


def test_the_least_thought_that_was_asked_for_is_thought(serve: Serve, model: Model) -> None:
    running = serve(early_exit_shadow=0, script=model("The answer is 42."))
    report = (
        running.ask(budget=BUDGET, ponder={"early_exit": AGREE, "min_thinking_tokens": 200})
        .choices[0]
        .ponder
    )
    assert report["end_cause"] == "agreement" and report["thinking_tokens"] > 200


@pytest.mark.parametrize(
    ("more", "cause"),
    [
        ({"budget": 40}, "budget"),
        ({"budget": BUDGET, "max_completion_tokens": 60}, "length"),
        ({"budget": 0}, "disabled"),
        ({"budget": BUDGET}, "agreement"),
    ],
)
def test_the_earliest_cause_is_named(
    serve: Serve, model: Model, more: dict[str, Any], cause: str
) -> None:
    running = serve(early_exit_shadow=0, script=model("The answer is 42."))
    reply = running.ask(**more, ponder={"early_exit": AGREE})
    report = reply.choices[0].ponder
    assert report["end_cause"] == cause
    assert reply.usage.completion_tokens == parts(report)


def test_a_format_holds_the_answer_and_no_probe(serve: Serve, model: Model) -> None:
    running = serve(early_exit_shadow=0, script=model("42"))
    form = {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "integer"}}}
    reply = running.ask(budget=BUDGET, ponder={"early_exit": AGREE}, response_format=form)
    assert reply.choices[0].ponder["end_cause"] == "agreement"
    grammars = [sampling.grammar for _, sampling in running.engine.requests]
    assert [bool(grammar) for grammar in grammars].count(True) == 1
    assert grammars[-1] is not None
