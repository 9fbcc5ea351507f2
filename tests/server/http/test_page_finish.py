"""The page's button that finishes a thought, one beside each reply."""

from __future__ import annotations

from browser import Page

from waiting import wait_until

from .conftest import Serve
from .visiting import ANSWERED, begin, click, cost, fill, text, visit

ENDLESS = "thinking " * 400
ANSWER = "The answer is 42."
FIRST, SECOND = ".reply:nth-child(1)", ".reply:nth-child(2)"


def shown(page: Page, selector: str) -> bool:
    return not page.run(f'document.querySelector("{selector}").hidden')


def test_a_button_finishes_the_thought(serve: Serve, page: Page) -> None:
    running = serve(ENDLESS, ANSWER, delay=0.01)
    visit(page, running)
    begin(page, "3000")
    page.wait('document.querySelector("progress").value > 20')
    page.run('document.querySelector(".finish").focus()')
    label = page.run('document.activeElement.getAttribute("aria-label")')
    assert label == "Finish now: 3,000 tokens"
    click(page, ".finish")
    assert text(page, ".state") == "Finishing"
    page.wait(ANSWERED)
    assert text(page, ".state").startswith("Thought closed when asked to.")
    assert text(page, ".answer") == ANSWER
    assert text(page, ".thought").startswith("thinking thinking")
    assert 20 < int(cost(page, "thinking")) < 3000
    assert not shown(page, ".finish")
    assert page.run("document.activeElement.className") == "thought"
    assert page.complaints == []


def test_a_thought_is_finished_before_its_first_token(serve: Serve, page: Page) -> None:
    running = serve(ENDLESS, ANSWER)
    visit(page, running)
    running.engine.hang()
    begin(page, "3000")
    wait_until(lambda: running.engine.unfinished() == 1)
    click(page, ".finish")
    click(page, ".finish")  # no more than one at a time
    wait_until(lambda: len(running.engine.requests) == 2)
    running.loop.call_soon_threadsafe(running.engine.go_on)
    page.wait(ANSWERED)
    assert (text(page, ".thought"), text(page, ".answer")) == ("", ANSWER)


def test_side_by_side_each_has_its_own(serve: Serve, page: Page) -> None:
    running = serve(ENDLESS, ANSWER, delay=0.01)
    visit(page, running)
    click(page, "#compare")
    begin(page, "3000")
    for reply in (FIRST, SECOND):
        page.wait(f"document.querySelector('{reply} progress').matches('.open, [value]')")
        page.wait(f"document.querySelector('{reply} .thought').textContent.length > 9")
    click(page, f"{SECOND} .finish")
    page.wait(f"document.querySelector('{SECOND} .answer').textContent.includes('42')")
    assert shown(page, f"{FIRST} .finish") and not shown(page, f"{SECOND} .finish")
    assert text(page, f"{FIRST} .answer") == ""
    click(page, f"{FIRST} .finish")
    page.wait(ANSWERED)
    for reply in (FIRST, SECOND):
        assert text(page, f"{reply} .answer") == ANSWER
        assert "closed when asked to" in text(page, f"{reply} .state")


def test_what_cannot_be_finished_says_why(serve: Serve, page: Page) -> None:
    running = serve(ENDLESS, ANSWER, delay=0.01)
    visit(page, running)
    begin(page, "3000")
    page.wait('document.querySelector("progress").value > 20')
    page.run(
        "{ const real = window.fetch; window.fetch = (url, more) => url.endsWith('/finish')"
        " ? Promise.reject(new TypeError('no network')) : real(url, more); }"
    )
    click(page, ".finish")
    page.wait("document.querySelector('.state').textContent.includes('cannot be reached')")
    assert page.run('document.querySelector(".finish").ariaDisabled') == "false"
    click(page, "#stop")
    page.wait(ANSWERED)
    assert not shown(page, ".finish")


def test_without_a_thought_there_is_no_button(serve: Serve, page: Page) -> None:
    running = serve("42 " * 300, delay=0.01)
    visit(page, running)
    begin(page, "0")
    page.wait("document.querySelector('.answer').textContent.length > 3")
    assert not shown(page, ".finish")
    click(page, "#stop")
    page.wait(ANSWERED)
    fill(page, ".number", "")
