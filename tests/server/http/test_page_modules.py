"""The page's modules by themselves: what they make of the wire, of a model and of replies."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from browser import Page

from .conftest import Serve


@pytest.fixture
def module(serve: Serve, page: Page) -> Page:
    """A tab on the page, whose modules can be imported."""
    page.open(serve().url)
    return page


def call(page: Page, module: str, expression: str) -> Any:
    """The value of an expression, in which `m` is a module."""
    return page.run(f'import("/pages/{module}.js").then((m) => {expression})')


STREAM = (
    ': keep-alive\n\ndata: {"a":"é𝟜"}\r\n\r\nevent: ping\ndata:one\ndata: two\n\n: \n\n'
    "data: [DONE]\n\ndata: not whole"
)
READ = """(async () => {
  const bytes = new TextEncoder().encode(%s), found = [];
  for (let at = 0; at <= bytes.length; at++) {
    const parts = [bytes.slice(0, at), bytes.slice(at)].filter((part) => part.length);
    const body = new ReadableStream({ start(stream) {
      for (const part of parts) stream.enqueue(part);
      stream.close();
    }});
    const data = [];
    for await (const one of m.events(body)) data.push(one);
    found.push(data.join("|"));
  }
  return [...new Set(found)];
})()"""


def test_events_are_the_same_wherever_bytes_are_split(module: Page) -> None:
    found = call(module, "stream", READ % json.dumps(STREAM))
    assert found == ['{"a":"é𝟜"}|one\ntwo|[DONE]']


def test_whoever_stops_reading_hangs_up(module: Page) -> None:
    said = call(
        module,
        "stream",
        """(async () => {
          let left = false;
          const body = new ReadableStream({
            pull(stream) { stream.enqueue(new TextEncoder().encode("data: x\\n\\n")); },
            cancel() { left = true; },
          });
          for await (const one of m.events(body)) break;
          await new Promise(setTimeout);
          return left;
        })()""",
    )
    assert said is True


CAN = {
    "trained_budgets": [40, 80, 160, 200],
    "efforts": {"none": 0, "minimal": 128, "low": 1024, "max": 16384},
    "auto_budget": None,
    "budget_ceiling": None,
}


def stops(page: Page, context: int, **more: object) -> list[tuple[int, str | None]]:
    given = json.dumps({**CAN, **more})
    found = call(page, "budget", f"m.stops({given}, {context}).map((s) => [s.tokens, s.mark])")
    return [(tokens, mark) for tokens, mark in found]


def test_a_slider_stops_at_what_matters_for_a_model(module: Page) -> None:
    found = stops(module, 4096)
    tokens = [tokens for tokens, _ in found]
    assert (tokens[0], tokens[-1]) == (0, -1)
    assert tokens[1:-1] == sorted(set(tokens[1:-1]))
    marked = {tokens: mark for tokens, mark in found if mark}
    trained = dict.fromkeys((40, 80, 160, 200), "trained")
    ends = {0: "no thought", -1: "no limit"}
    assert marked == {**ends, **trained, 128: "minimal", 1024: "low"}
    between = set(tokens) - marked.keys()
    assert {16, 32, 64, 512} <= between
    assert all(abs(n - mark) > 0.1 * n for n in between for mark in trained)


@pytest.mark.parametrize(
    ("auto", "mark"), [(96, "auto"), (0, "no thought, auto"), (-1, "no limit, auto")]
)
def test_a_slider_marks_auto_also_at_its_ends(module: Page, auto: int, mark: str) -> None:
    found = dict(stops(module, 4096, auto_budget=auto))
    assert found[auto] == mark
    assert [tokens for tokens, mark in found.items() if mark and "auto" in mark] == [auto]


def test_a_slider_ends_where_a_ceiling_or_the_context_does(module: Page) -> None:
    assert stops(module, 4096, budget_ceiling=100)[-2][0] == 96
    assert max(tokens for tokens, _ in stops(module, 512)) < 512


def test_a_budget_has_a_name(module: Page) -> None:
    assert call(module, "budget", "[0, 1, 64, 4096, -1].map(m.named)") == [
        "no thought",
        "1 token",
        "64 tokens",
        "4,096 tokens",
        "no limit",
    ]


def test_sums_are_checked_by_their_last_number(module: Page) -> None:
    drawn = call(module, "sums", "Array.from({length: 200}, () => m.sum())")
    for one in drawn:
        expression = one["question"].removeprefix("What is ").removesuffix("?")
        parts = expression.split()
        value = int(parts[0])
        for sign, term in zip(parts[1::2], parts[2::2], strict=True):
            value += int(term) if sign == "+" else -int(term)
            assert value >= 0
        assert value == one["value"]
    judged = call(
        module,
        "sums",
        """["It is 42.", "40 + 2 = 42", "1,042", "42 or 43", "-42", "no idea", "42.0", "4 2"]
           .map((answer) => m.right({ value: 42 }, answer))""",
    )
    assert judged == [True, True, False, False, False, False, True, False]
    assert call(module, "sums", 'm.right({ value: 1042 }, "1,042")') is True


def test_a_point_has_wilsons_interval(module: Page) -> None:
    replies = [{"thinking": 10 + n, "answer": 5, "right": n < 3} for n in range(10)]
    found = call(module, "curve", f"m.point(40, {json.dumps(replies)})")
    assert (found["x"], found["y"], found["label"]) == (14.5, 0.3, "40")
    # Newcombe, Statistics in Medicine 17 (1998), 857: z = 1.96.
    z, n, p = 1.959963984540054, 10, 0.3
    middle, spread = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    assert found["low"] == pytest.approx((middle - spread) / (1 + z * z / n))
    assert found["high"] == pytest.approx((middle + spread) / (1 + z * z / n))


def test_a_point_of_a_question_is_how_long_its_answers_are(module: Page) -> None:
    replies = [{"thinking": 10, "answer": n, "right": None} for n in (4, 6)]
    found = call(module, "curve", f"m.point(0, {json.dumps(replies)})")
    assert (found["y"], found["low"], found["high"]) == (5, 5, 5)
    assert found["label"] == "no thought"


def saved(value: float, low: float, high: float) -> str:
    ratio = {"value": value, "low": low, "high": high}
    return json.dumps({"tokens": {"ratio": ratio}, "holdout": 0.05, "more_requests_needed": None})


def test_savings_are_a_sentence(module: Page) -> None:
    less = call(module, "savings", f"m.sentence({saved(0.65, 0.6, 0.7)})")
    assert less == (
        "35 % fewer tokens per request, with a 95 % interval of 30 to 40 %. "
        "5 % of conversations go without the saving policy."
    )
    more = call(module, "savings", f"m.sentence({saved(1.1, 0.9, 1.25)})")
    assert more.startswith("10 % more tokens per request, with a 95 % interval of −10 to 25 %.")
    none = {"tokens": {"ratio": None}, "holdout": 0.5, "more_requests_needed": 1234}
    said = call(module, "savings", f"m.sentence({json.dumps(none)})")
    assert said.startswith("Insufficient data: about 1,234 more requests are needed. 50 %")
