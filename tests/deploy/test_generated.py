"""What is generated is as its generator writes it, and the dashboard asks nothing invalid."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import generate
import pytest
import yaml

from .conftest import ROOT

DASHBOARD = "deploy/grafana/ponder.json"


@pytest.mark.parametrize("path", generate.FILES)
def test_committed_files_are_as_generated(path: str) -> None:
    remedy = "run .venv/bin/python deploy/generate.py and commit what it writes"
    assert (ROOT / path).read_text() == generate.FILES[path](), remedy


def panels() -> Iterator[dict[str, Any]]:
    for panel in json.loads((ROOT / DASHBOARD).read_text())["panels"]:
        if panel["type"] != "row":
            yield panel


def queries() -> list[str]:
    return [target["expr"] for panel in panels() for target in panel["targets"]]


def without_variables(query: str) -> str:
    """As Grafana fills them in."""
    for name, value in {"$job": "ponder", "$__rate_interval": "1m", "$__range": "1h"}.items():
        query = query.replace(name, value)
    assert "$" not in query
    return query


def test_every_query_parses(promtool: Callable[..., str], tmp_path: Path) -> None:
    rules = [
        {"record": f"dashboard:query:{number}", "expr": without_variables(query)}
        for number, query in enumerate(queries())
    ]
    file = tmp_path / "rules.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    assert f"{len(queries())} rules found" in promtool("check", "rules", file)


def test_the_panels_are_those_that_operators_need() -> None:
    said = " ".join(queries())
    for metric in (
        "ponder_thinking_tokens_total",
        "ponder_answer_tokens_total",
        "ponder_requests_total",
        "ponder_budget_used_ratio_bucket",
        "ponder_time_to_first_answer_token_seconds_bucket",
        "ponder:savings:difference_lower",
        "ponder:holdout:mean",
        "ponder_budget_violations_total",
        "ponder_empty_answers_total",
        "vllm:num_requests_running",
    ):
        assert metric in said


def test_panels_fill_the_grid_and_say_what_they_show() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in panels():
        assert panel["description"].endswith(".")
        place = panel["gridPos"]
        cells = {
            (place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])
        }
        assert max(x for x, _ in cells) < 24
        assert not cells & taken
        taken |= cells
    ids = [panel["id"] for panel in json.loads((ROOT / DASHBOARD).read_text())["panels"]]
    assert len(ids) == len(set(ids))


def test_the_runbook_names_panels_that_exist() -> None:
    titles = {panel["title"] for panel in panels()}
    runbook = (ROOT / "docs/runbook.md").read_text()
    named = {part.replace("\n", " ") for part in runbook.split("*")[1::2]}
    assert {name for name in named if name[:1].isupper()} - titles == set()
