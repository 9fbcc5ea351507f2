"""The README's examples on the bundled checkpoint: they run as they stand, and they are right."""

from __future__ import annotations

import contextlib
import io
import json
import re
from pathlib import Path
from typing import Any

import httpx
import pytest

from bench.openings import BUDGET, EXAMPLE, FEWEST, OPENINGS, SAMPLES, Opening, ask

from .conftest import ServerProcess

pytestmark = pytest.mark.engine

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
GREETING = README.split("ponder: serving", 1)[1].split("```", 1)[0]
CODE = README.split("```python\n", 1)[1].split("```", 1)[0]
TABLE = re.findall(r"^\| ([−\d]+) \| (\d+) ?% \| (\d+) \| (\w+) (\d+) ?% \|$", README, re.MULTILINE)
RIGHT = 0.9


def test_the_greeting_is_the_one_that_the_readme_shows(server: ServerProcess) -> None:
    said = server.log.read_text(encoding="utf-8").replace(server.url, "http://127.0.0.1:8000")
    assert GREETING.rstrip() in said


def test_the_greetings_request_is_answered_right(server: ServerProcess) -> None:
    found = re.search(r"-d '(.*)'", GREETING)
    assert found
    body = json.loads(found[1])
    reply = httpx.post(
        f"{server.url}/v1/chat/completions",
        json=body | {"n": SAMPLES, "seed": 1},
    ).json()
    question = Opening(body["messages"][0]["content"], "33")
    right = sum(question.right(choice["message"]["content"]) for choice in reply["choices"])
    assert right >= RIGHT * SAMPLES


@pytest.mark.parametrize("opening", OPENINGS, ids=lambda opening: opening.question)
@pytest.mark.parametrize("budget", [None, BUDGET])
def test_what_people_type_first_is_answered_right(
    server: ServerProcess, opening: Opening, budget: int | None
) -> None:
    assert ask(server.url, "tiny", opening, budget).right >= FEWEST


def test_a_reply_has_the_fields_that_the_readme_shows(server: ServerProcess) -> None:
    shown = json.loads(README.split("```json\n", 1)[1].split("```", 1)[0])
    found = re.search(r"-d '(.*)'", GREETING)
    assert found
    reply = httpx.post(f"{server.url}/v1/chat/completions", json=json.loads(found[1])).json()
    assert _missing(shown, reply) == []


def test_the_python_example_prints_a_line_per_budget(server: ServerProcess) -> None:
    said = io.StringIO()
    code = CODE.replace("http://127.0.0.1:8000", server.url)
    assert code != CODE
    with contextlib.redirect_stdout(said):
        # Its client is closed as a script closes it: by its end.
        exec(compile(code + "\nclient.close()\n", "README.md", "exec"), {})
    lines = said.getvalue().splitlines()
    assert [line.split()[0] for line in lines] == [budget.replace("−", "-") for budget, *_ in TABLE]
    for line in lines:
        assert re.fullmatch(r"-?\d+ The answer is -?\d+\. \d+ \w+", line)


def test_the_table_says_what_the_examples_budgets_do(server: ServerProcess) -> None:
    assert EXAMPLE.question in CODE
    assert len(TABLE) == 3
    for budget, right, tokens, end_cause, share in TABLE:
        found = ask(server.url, "tiny", EXAMPLE, int(budget.replace("−", "-")))
        assert found.end_cause == end_cause
        assert found.ended_so == pytest.approx(int(share) / 100, abs=0.15)
        assert found.tokens == pytest.approx(int(tokens), rel=0.2)
        assert found.right / SAMPLES == pytest.approx(int(right) / 100, abs=0.1)
    assert [int(right) >= 100 * RIGHT for _, right, *_ in TABLE] == [False, True, True]


def _missing(shown: Any, reply: Any, at: str = "") -> list[str]:
    """What `shown` has and `reply` lacks."""
    if isinstance(shown, list):
        return [m for s, r in zip(shown, reply, strict=True) for m in _missing(s, r, at)]
    if not isinstance(shown, dict):
        return []
    absent = [f"{at}.{name}" for name in shown.keys() - reply.keys()]
    both = shown.keys() & reply.keys()
    return absent + [m for name in both for m in _missing(shown[name], reply[name], f"{at}.{name}")]
