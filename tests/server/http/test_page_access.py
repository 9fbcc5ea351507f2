"""The page for those who press keys, listen, sit in the dark, or hold something small."""

from __future__ import annotations

from itertools import pairwise

import pytest
from browser import Page

from .conftest import Serve
from .visiting import ask, begin, click, fill, text, visit

HOLDOUT = {"holdout": 0.5, "holdout_key": "a key of sixteen"}
CONTROLS = ("textbox", "button", "slider", "spinbutton", "radio", "checkbox", "combobox", "link")
LANDMARKS = ("banner", "navigation", "main", "region", "form", "image")


def test_all_that_can_be_worked_has_a_name(serve: Serve, page: Page) -> None:
    visit(page, serve(api_key="one"))
    click(page, "#compare")
    ask(page, "64")
    found = page.named(*CONTROLS)
    assert {role for role, _ in found} == set(CONTROLS)
    assert [role for role, name in found if not name] == []
    sliders = [name for role, name in found if role == "slider"]
    assert sliders == ["Budget of thought", "Second budget of thought"]
    regions = {name for _, name in page.named(*LANDMARKS)}
    assert {"Thought", "Answer", "Budget curve"} <= regions


def test_the_slider_goes_by_keys_and_says_where_it_is(serve: Serve, page: Page) -> None:
    visit(page, serve())
    page.run('document.querySelector(".range").focus()')
    said = []
    for key in ("Home", "ArrowRight", "End", "ArrowLeft"):
        page.press(key)
        said.append(page.run('document.querySelector(".range").ariaValueText'))
    assert said == ["no thought, answers at once", "16 tokens", "no limit", "3,072 tokens"]
    assert page.run('document.querySelector(".number").value') == "3072"
    fill(page, ".number", "200")
    assert page.run('document.querySelector(".range").ariaValueText') == (
        "200 tokens, trained on this"
    )


def test_the_focus_goes_from_the_question_to_the_answer_and_can_be_seen(
    serve: Serve, page: Page
) -> None:
    visit(page, serve())
    page.press("Tab")
    assert text(page, ":focus") == "Skip to the question"
    assert page.run('document.querySelector(":focus").getBoundingClientRect().left') >= 0
    page.press("Enter")
    page.wait('document.activeElement.id === "question"')
    visited = []
    while text(page, ":focus") != "Ask":
        page.press("Tab")
        visited.append(
            page.run(
                "(({ id, className, tagName }) => id || className || tagName)"
                "(document.activeElement)"
            )
        )
        assert page.run("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    assert visited[-7:] == ["range", "compare", "deadline", "SELECT", "SELECT", "SUMMARY", "send"]
    fill(page, "#question", "What is 40 + 2?")
    page.press("Enter")
    page.wait('document.querySelector(".answer").textContent.includes("42")')


# WCAG 2.2, 1.4.3: the ratio of the luminances of a text and of the ground behind it.
CONTRAST = """((selector) => {
  const parse = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const light = (colour) => {
    const [r, g, b] = parse(colour).map((c) => c / 255)
      .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const element = document.querySelector(selector);
  let ground = element;
  const clear = (one) => parse(getComputedStyle(one).backgroundColor)[3] === 0;
  while (clear(ground)) ground = ground.parentElement;
  const style = getComputedStyle(element);
  const ink = light(element.closest("svg") ? style.fill : style.color);
  const paper = light(getComputedStyle(ground).backgroundColor);
  return (Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05);
})("%s")"""
TEXTS = ("h1", ".lead", "#send", "#model", ".tick.trained", ".about", ".thought", ".answer", "dt")
MORE_TEXTS = ("dd", ".state", ".reply .error", "svg .scale", "pre", "a", ".hint", ".go")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_stands_out_from_its_ground(serve: Serve, page: Page, scheme: str) -> None:
    running = serve()
    visit(page, running)
    page.look(1100, 900, scheme=scheme)
    ask(page, "64")
    ground = page.run("getComputedStyle(document.body).backgroundColor")
    assert (ground < "rgb(2") == (scheme == "dark")
    found = {one: page.run(CONTRAST % one) for one in (*TEXTS, *MORE_TEXTS)}
    assert {one: ratio for one, ratio in found.items() if ratio < 4.5} == {}
    assert found[".thought"] < found[".answer"]  # dimmed


@pytest.mark.parametrize("width", [320, 768, 1400])
def test_nothing_is_wider_than_the_window(serve: Serve, page: Page, width: int) -> None:
    name = "somebody/a-model-with-a-long-name"
    visit(page, serve(served_model_name=name, api_key="one", **HOLDOUT))
    page.look(width, 700)
    click(page, "#compare")
    fill(page, "#key", "one")
    page.run('for (const more of document.querySelectorAll("details")) more.open = true; undefined')
    fill(page, "#question", "x" * 200)
    begin(page, "64", "x" * 200)
    page.wait('document.getElementById("weighed").textContent !== ""')
    page.wait('!document.getElementById("to-savings").hidden')
    page.run('document.querySelector("[name=times]").value = "5"')
    click(page, "#curve .go")
    page.wait('document.querySelector("#curve .state").textContent.startsWith("Done")')
    assert page.run("document.documentElement.scrollWidth") == width
    brand, links = page.run(
        '[".brand", "nav"].map((one) => document.querySelector(one).getBoundingClientRect())'
        ".map(({ right, left, top, bottom }) => ({ right, left, top, bottom }))"
    )
    assert brand["right"] <= links["left"] or brand["bottom"] <= links["top"]
    outside = (
        '[...document.querySelectorAll("body *:not(.wide *):not(svg *):not(.skip)")]'
        ".filter((one) => one.getBoundingClientRect().right > innerWidth)"
        ".map((one) => one.className || one.id)"
    )
    assert page.run(outside) == []
    named = page.run(
        "[...document.querySelector('.ticks').querySelectorAll('.tick:not(.bare)')].map((tick) => "
        "tick.getBoundingClientRect()).map(({ left, right }) => [left, right])"
    )
    assert len(named) >= 3
    assert all(one[1] < next[0] for one, next in pairwise(sorted(named)))


def test_nothing_jumps_when_the_reply_comes(serve: Serve, page: Page) -> None:
    running = serve()
    visit(page, running)
    page.look(1100, 900)
    where = (
        '[".thought", ".answer", ".cost", "#curve"].map((one) => Math.round('
        "document.querySelector(one).getBoundingClientRect().top + scrollY))"
    )
    running.engine.hang()
    begin(page, "64")
    page.wait('document.querySelector(".state").textContent.startsWith("Waiting")')
    before = page.run(where)
    page.wait('document.querySelector(".state").textContent.startsWith("Still waiting")')
    running.engine.go_on()
    page.wait('!document.querySelector(".again").disabled')
    assert page.run(where) == pytest.approx(before, abs=1)


@pytest.mark.parametrize(("motion", "moving"), [("no-preference", 1), ("reduce", 0)])
def test_motion_is_left_out_where_it_is_not_wanted(
    serve: Serve, page: Page, motion: str, moving: int
) -> None:
    running = serve()
    visit(page, running)
    page.prefer("prefers-reduced-motion", motion)
    running.engine.hang()
    begin(page, "")
    page.wait('document.querySelector(".state").textContent.startsWith("Waiting")')
    assert page.run("document.getAnimations().length") == moving
    running.engine.go_on()
    page.wait('!document.querySelector(".again").disabled')
    assert page.run("document.getAnimations().length") == 0
