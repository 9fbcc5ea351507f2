"""What a person does on the page at `/`, and sees of it."""

from __future__ import annotations

import json

from browser import Page

from .conftest import Running


def visit(page: Page, running: Running) -> None:
    page.open(running.url)
    page.wait('!document.getElementById("send").disabled')


def text(page: Page, selector: str) -> str:
    said: str = page.run(f"document.querySelector({json.dumps(selector)}).textContent")
    return said.strip()


def fill(page: Page, selector: str, value: str) -> None:
    """Write into a field as a user does."""
    page.run(
        f"{{ const field = document.querySelector({json.dumps(selector)});"
        f"field.value = {json.dumps(value)};"
        'for (const kind of ["input", "change"]) field.dispatchEvent(new Event(kind, '
        "{bubbles: true})); }"
    )


def click(page: Page, selector: str) -> None:
    page.run(f"document.querySelector({json.dumps(selector)}).click()")


def begin(page: Page, budget: str, question: str = "What is 40 + 2?") -> None:
    fill(page, "#question", question)
    fill(page, ".number", budget)
    click(page, "#send")


ANSWERED = '!document.querySelector("#send").disabled && !document.querySelector(".again").disabled'


def ask(page: Page, budget: str) -> None:
    begin(page, budget)
    page.wait(ANSWERED)


def cost(page: Page, name: str) -> str:
    return text(page, f'[data-cost="{name}"]')
