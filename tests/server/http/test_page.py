"""The page at `/` in a real browser, on the scripted engine: what people see, hear and press."""

from __future__ import annotations

from typing import Any

import pytest
from browser import Page

from waiting import wait_until

from .conftest import Serve
from .visiting import ANSWERED, ask, begin, click, cost, fill, text, visit

ENDLESS = "thinking " * 500


def test_a_question_is_answered(serve: Serve, page: Page) -> None:
    running = serve(delay=0.01)
    visit(page, running)
    assert text(page, "#model") == "tiny"
    assert "trained on budgets of 40, 80, 160 and 200 tokens" in text(page, "#about")
    ask(page, "64")
    assert text(page, ".thought") == "First I add. Then I check it."
    assert text(page, ".answer") == "The answer is 42."
    assert text(page, ".state").startswith("Thought ended by itself. The model was told of 40 tok")
    spent = cost(page, "thinking")
    assert text(page, ".count") == f"{spent} of 64 tokens"
    assert page.run('document.querySelector("progress").value') == int(spent)
    assert cost(page, "forced") == "0" and int(cost(page, "answered")) > 0
    assert cost(page, "first").endswith("ms") and cost(page, "reached").endswith("ms")
    assert '"thinking_token_budget":64' in text(page, "#curl")
    assert page.complaints == []
    assert all(url.startswith((running.url, "data:")) for url in page.asked)


def test_asking_again_asks_the_same_again(serve: Serve, page: Page) -> None:
    running = serve()
    visit(page, running)
    ask(page, "64")
    click(page, ".again")
    page.wait(ANSWERED)
    first, second = (prompt for prompt, _ in running.engine.requests)
    assert first == second
    assert text(page, ".answer") == "The answer is 42."


def test_an_example_asks_itself(serve: Serve, page: Page) -> None:
    visit(page, serve())
    click(page, "#examples button")
    page.wait(ANSWERED)
    assert page.run('document.querySelector("#question").value') == "2+2"


def test_a_meter_runs_while_the_model_thinks_and_the_answer_is_read_once(
    serve: Serve, page: Page
) -> None:
    running = serve(ENDLESS, delay=0.01, budget_ceiling=4000)
    visit(page, running)
    begin(page, "4000")
    page.wait('document.querySelector("progress").value > 3')
    assert text(page, ".state") == "Thinking"
    assert text(page, ".count").endswith(" of 4,000 tokens")
    assert page.run('document.querySelector(".answer").ariaBusy') == "true"
    assert page.run('document.querySelector(".answer").ariaLive') == "polite"
    click(page, "#stop")
    page.wait(ANSWERED)
    assert text(page, ".state") == "Stopped"
    assert page.run('document.querySelector(".answer").ariaBusy') == "false"
    assert page.run('document.querySelector("#stop").hidden')
    wait_until(lambda: running.engine.unfinished() == 0)
    assert page.complaints == []


def test_no_budget_is_no_thought(serve: Serve, page: Page) -> None:
    visit(page, serve("42"))
    ask(page, "0")
    assert text(page, ".thought") == ""
    assert text(page, ".answer") == "42"
    assert text(page, ".count") == "no thought"
    assert text(page, ".state").startswith("Thought not asked for.")


def test_no_limit_is_no_limit(serve: Serve, page: Page) -> None:
    visit(page, serve())
    ask(page, "")
    assert text(page, ".name") == "no limit"
    assert text(page, ".count") == f"{cost(page, 'thinking')} tokens"
    assert '"thinking_token_budget":-1' in text(page, "#curl")


def test_what_is_cut_and_what_a_ceiling_takes_is_said(serve: Serve, page: Page) -> None:
    visit(page, serve(ENDLESS, budget_ceiling=9))
    ask(page, "12")
    said = text(page, ".state")
    assert said.startswith("Thought closed at its budget. Asked for 12 tokens, it was allowed 9")
    assert int(cost(page, "forced")) > 0


def test_a_deadline_is_asked_for_and_what_became_of_it_is_said(serve: Serve, page: Page) -> None:
    running = serve("thinking and thinking. " * 100, "42 " * 20, delay=0.1)  # of 4 s or more
    visit(page, running)
    fill(page, "#deadline", "2000")
    ask(page, "400")
    assert '"ponder":{"deadline_ms":2000}' in text(page, "#curl")
    said = text(page, ".state")
    assert said.startswith("Thought closed to answer in time.")
    assert "The answer came after its deadline." in said
    fill(page, "#deadline", "")
    assert "deadline_ms" not in text(page, "#curl")
    fill(page, "#deadline", "0")
    click(page, "#send")
    assert not page.run('document.querySelector("#ask").checkValidity()')
    assert page.run('document.querySelector("#stop").hidden')
    assert page.complaints == []


def test_refusals_are_shown_in_words(serve: Serve, page: Page) -> None:
    running = serve()
    visit(page, running)
    running.service.gate.draining = True
    ask(page, "64")
    assert "is shutting down" in text(page, ".reply .error")
    assert not page.run('document.querySelector(".reply .error").hidden')
    assert text(page, ".state") == "Failed"
    running.service.gate.draining = False
    click(page, ".again")
    page.wait('document.querySelector(".answer").textContent.includes("42")')
    assert page.run('document.querySelector(".reply .error").hidden')


def test_an_engine_that_dies_in_mid_stream_is_an_error_in_words(serve: Serve, page: Page) -> None:
    running = serve(ENDLESS, delay=0.01)
    visit(page, running)
    begin(page, "400")
    page.wait('document.querySelector("progress").value > 3')
    running.engine.kill()
    page.wait('!document.querySelector(".reply .error").hidden')
    assert text(page, ".reply .error")
    assert text(page, ".thought").startswith("thinking")


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        ("Promise.reject(new TypeError('no network'))", "The server cannot be reached"),
        ("Promise.resolve(new Response('data: {\"choices\": []}\\n\\n'))", "before the answer did"),
        ("Promise.resolve(new Response('data: <html>\\n\\n'))", "before the answer did"),
        ("Promise.resolve(new Response('<html>', {status: 502}))", "answered 502"),
    ],
)
def test_a_broken_line_is_an_error_in_words(
    serve: Serve, page: Page, reply: str, words: str
) -> None:
    visit(page, serve())
    page.run(f"window.fetch = () => {reply}; undefined")
    ask(page, "64")
    assert words in text(page, ".reply .error")
    assert text(page, ".state") == "Failed"


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        ("Promise.reject(new TypeError('gone'))", "cannot be reached"),
        ("Promise.resolve(new Response('<html>'))", "is not a Ponder server's"),
    ],
)
def test_a_page_whose_server_does_not_answer_can_be_tried_again(
    serve: Serve, page: Page, reply: str, words: str
) -> None:
    page.before(f"window.real = fetch; window.fetch = () => {reply};")
    page.open(serve().url)
    page.wait('!document.getElementById("trouble").hidden')
    assert words in text(page, "#trouble")
    assert page.run('document.querySelector("#send").disabled')
    page.run("window.fetch = window.real; undefined")
    click(page, "#retry")
    page.wait('!document.getElementById("send").disabled')
    assert page.run('document.getElementById("trouble").hidden')


def test_a_key_is_asked_for_kept_in_the_tab_and_sent(serve: Serve, page: Page) -> None:
    running = serve(api_key="one")
    visit(page, running)
    assert not page.run('document.getElementById("key-field").hidden')
    assert page.complaints == []  # nothing was asked without the key
    ask(page, "64")
    assert "key" in text(page, ".reply .error").lower()
    assert page.run("document.activeElement.id") == "key"
    assert page.run('document.activeElement.getAttribute("aria-invalid")') == "true"
    fill(page, "#key", " one ")
    click(page, "#send")
    page.wait('document.querySelector(".answer").textContent.includes("42")')
    assert page.run("Object.entries(sessionStorage).join() + localStorage.length") == (
        "ponder-key,one0"
    )
    assert "YOUR_KEY" in text(page, "#curl")
    visit(page, running)
    ask(page, "64")
    assert text(page, ".answer") == "The answer is 42."


def test_two_budgets_side_by_side(serve: Serve, page: Page) -> None:
    visit(page, serve())
    page.look(1100, 900)
    click(page, "#compare")
    fill(page, ".budget:last-of-type .number", "4")
    ask(page, "64")
    replies: list[dict[str, Any]] = page.run(
        '[...document.querySelectorAll(".reply")].map((reply) => ({'
        'name: reply.querySelector(".name").textContent,'
        "tokens: Number(reply.querySelector('[data-cost=\"thinking\"]').textContent),"
        "top: reply.getBoundingClientRect().top}))"
    )
    assert [reply["name"] for reply in replies] == ["64 tokens", "4 tokens"]
    assert replies[0]["top"] == replies[1]["top"]
    apart = replies[0]["tokens"] - replies[1]["tokens"]
    assert text(page, "#weighed") == f"With 4 tokens the thought is {apart} tokens shorter."
    click(page, "#compare")
    assert page.run('document.querySelectorAll(".reply").length') == 1
    assert page.complaints == []


def test_a_comparison_is_of_the_budgets_that_were_asked_for(serve: Serve, page: Page) -> None:
    """The sliders may have moved since, or one of them may be gone."""
    visit(page, serve(delay=0.02))
    click(page, "#compare")
    fill(page, ".budget:last-of-type .number", "4")
    begin(page, "64")
    fill(page, ".budget:last-of-type .number", "128")
    click(page, "#compare")
    page.wait('!document.getElementById("send").disabled')
    assert text(page, "#weighed").startswith("With 4 tokens the thought is ")
    assert page.complaints == []


def test_a_curve_of_sums_is_drawn_from_real_requests(serve: Serve, page: Page) -> None:
    running = serve()
    visit(page, running)
    assert "No answers yet" in text(page, "#curve svg")
    page.run('document.querySelector("[name=times]").value = "5"')
    click(page, "#curve .go")
    page.wait('document.querySelector("#curve .state").textContent.startsWith("Done")')
    budgets = ["no thought", *(str(n) for n in (10, 20, 40, 80, 160, 200)), "no limit"]
    rows = page.run(
        '[...document.querySelectorAll("#curve tbody tr")].map((row) => '
        "[...row.cells].map((cell) => cell.textContent))"
    )
    assert [row[0] for row in rows] == budgets
    assert {row[3] for row in rows} == {"5"}
    assert len(running.engine.requests) >= 5 * len(budgets)
    assert page.run('document.querySelectorAll("#curve .point").length') == len(budgets)
    for axis in ("tokens of thought, mean", "right answers"):
        assert axis in text(page, "#curve svg")
    assert "80 tokens: " in page.run('document.querySelector("#curve svg").ariaLabel')
    assert page.complaints == []


def test_a_curve_of_the_question_shows_how_long_answers_are(serve: Serve, page: Page) -> None:
    running = serve(delay=0.01)
    visit(page, running)
    click(page, "[value=question]")
    click(page, "#curve .go")
    assert text(page, "#curve .state") == "Write the question above first."
    fill(page, "#question", "What is 40 + 2?")
    click(page, "#curve .go")
    page.wait('document.querySelectorAll("#curve .point").length > 2')
    click(page, "#curve .stop")
    page.wait('document.querySelector("#curve .state").textContent.startsWith("Stopped after")')
    assert "tokens of answer, mean" in text(page, "#curve svg")
    wait_until(lambda: running.engine.unfinished() == 0)


def test_a_calibrated_curve_is_shown_by_task(serve: Serve, page: Page) -> None:
    sums = {0: 0.1, 32: 0.9, -1: 0.9}
    running = serve(tasks={"sums": sums, "roots": {0: 0.1, 32: 0.5, -1: 0.6}})
    visit(page, running)
    click(page, "[value=calibrated]")
    page.wait('document.querySelectorAll("#curve .point").length === 3')
    assert "tokens in all, mean" in text(page, "#curve svg")
    assert page.run('[...document.querySelector("[name=task]").options].map((o) => o.value)') == [
        "",
        *running.service.capabilities.tasks,
    ]
    fill(page, "[name=task]", "sums")
    page.wait('document.querySelector("#curve svg").ariaLabel.includes("32 tokens: 90 % right")')
    assert page.run('document.querySelector("#curve .go").hidden')
    click(page, "[value=sums]")
    page.wait('!document.querySelector("#curve .go").hidden')
    assert "No answers yet" in text(page, "#curve svg")
    assert running.engine.requests == []
    assert page.complaints == []


def test_a_page_without_a_calibrated_curve_offers_none(serve: Serve, page: Page) -> None:
    visit(page, serve())
    assert page.run('document.querySelector(".calibrated").hidden')


def test_a_curve_ends_with_the_first_refusal(serve: Serve, page: Page) -> None:
    running = serve()
    visit(page, running)
    running.service.gate.draining = True
    click(page, "#curve .go")
    page.wait('document.querySelector("#curve .state").textContent.includes("shutting down")')
    assert not page.run('document.querySelector("#curve .go").disabled')


def test_savings_are_shown_where_a_holdout_runs(serve: Serve, page: Page) -> None:
    visit(page, serve())
    assert page.run('document.getElementById("savings").hidden')
    running = serve(holdout=0.5, holdout_key="a key of sixteen")
    visit(page, running)
    page.wait('!document.getElementById("savings").hidden')
    assert text(page, "#savings .sentence").startswith("Insufficient data: about ")
    ask(page, "64")
    page.wait('document.querySelectorAll("#savings tbody tr").length > 1')
    assert "tokens per request" in text(page, "#savings tbody")


def test_a_thought_that_nobody_can_read_is_no_missing_thought(serve: Serve, page: Page) -> None:
    visit(page, serve("42", thinks=False, unread="<thought>"))
    assert "is not understood" in text(page, "#about")
    fill(page, "#question", "What is 40 + 2?")
    click(page, "#send")
    page.wait('document.body.textContent.includes("Thought not understood.")')
    assert "no thought" not in page.run("document.body.textContent")


def test_a_model_that_does_not_think_is_asked_without_a_budget(serve: Serve, page: Page) -> None:
    visit(page, serve("42", thinks=False))
    assert "does not think" in text(page, "#about")
    assert page.run('document.querySelectorAll(".budget").length') == 0
    assert page.run('document.getElementById("curve").hidden')
    fill(page, "#question", "What is 40 + 2?")
    click(page, "#send")
    page.wait(ANSWERED)
    assert text(page, ".answer") == "42"
    assert "budget" not in text(page, "#curl")


def test_a_slow_network_loses_nothing(serve: Serve, page: Page) -> None:
    """Of 300 ms and 8 kB/s: the page comes in parts, and the reply in fewer, larger ones."""
    running = serve(delay=0.01)
    page.network(latency_ms=300, rate=8_000)
    visit(page, running)
    ask(page, "64")
    assert text(page, ".thought") == "First I add. Then I check it."
    assert text(page, ".answer") == "The answer is 42."
    assert page.complaints == []


def test_a_network_that_goes_away_is_said_and_the_question_can_be_asked_again(
    serve: Serve, page: Page
) -> None:
    running = serve()
    visit(page, running)
    page.network(offline=True)
    ask(page, "64")
    assert "The server cannot be reached" in text(page, ".reply .error")
    page.network()
    click(page, ".again")
    page.wait('document.querySelector(".answer").textContent.includes("42")')
    assert page.run('document.querySelector(".reply .error").hidden')
