"""What is generated is as its generator writes it, and the dashboard asks nothing invalid."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import generate
import pytest
import yaml
from generators import anytime, runbook
from generators.fleet import ENGINES

from .conftest import ROOT

DASHBOARD = "deploy/grafana/ponder.json"


@pytest.mark.parametrize("path", generate.FILES)
def test_committed_files_are_as_generated(path: str) -> None:
    remedy = "run .venv/bin/python deploy/generate.py and commit what it writes"
    assert (ROOT / path).read_text() == generate.FILES[path](), remedy


def board() -> dict[str, Any]:
    return dict(json.loads((ROOT / DASHBOARD).read_text()))


def panels() -> Iterator[dict[str, Any]]:
    for panel in board()["panels"]:
        if panel["type"] != "row":
            yield panel


def queries() -> list[str]:
    marks = [mark["expr"] for mark in board()["annotations"]["list"]]
    return marks + [target["expr"] for panel in panels() for target in panel["targets"]]


def without_variables(query: str) -> str:
    """As Grafana fills them in."""
    for name in ("$job", "$instance"):
        query = query.replace(name, "ponder")
    query = query.replace("$__rate_interval", "1m").replace("$__range", "1h")
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
    titles = {panel["title"] for panel in panels()}
    assert titles >= {
        "Requests per second",
        "Error share",
        "Errors",
        "End-to-end latency",
        "Time to first token",
        "Time to first answer token",
        "Tokens per second",
        "Thoughts by how they ended",
        "Budget used",
        "Quality by arm",
        "Engine load",
        "Time in the queue",
        "Cache",
        "Empty answers",
        "Budget violations",
    }


def test_every_query_is_of_the_servers_that_the_variables_choose() -> None:
    """What is recorded over the servers of a job knows no instance, nor does an alert or `up`."""
    for query in queries():
        for name, labels in re.findall(r"([a-zA-Z_:]+){(.*?)}", query):
            if labels == ENGINES:  # they are of no model, and several jobs may share them
                continue
            assert 'job=~"$job' in labels, query
            whole = name in ("up", "ALERTS") or name.startswith("ponder:")
            assert ('instance=~"$instance"' in labels) != whole, query


def test_variables_choose_servers_by_model_then_job() -> None:
    variables = {variable["name"]: variable for variable in board()["templating"]["list"]}
    assert list(variables) == ["source", "model", "job", "instance", "runbook"]
    assert variables["model"]["query"] == "label_values(ponder_build_info{}, model)"
    assert (
        variables["instance"]["query"]
        == 'label_values(ponder_build_info{model=~"$model",job=~"$job"}, instance)'
    )


def test_firing_alerts_are_marked_for_old_and_new_grafana() -> None:
    (mark,) = board()["annotations"]["list"]
    firing = 'ALERTS{alertstate="firing",job=~"$job|ponder-engines"}'
    assert mark["expr"] == mark["target"]["expr"] == firing
    assert mark["titleFormat"] == "{{alertname}}"
    (counted,) = [panel for panel in panels() if panel["title"] == "Alerts firing"]
    assert firing in counted["targets"][0]["expr"]


def test_what_alerts_ask_of_engines_has_a_panel_that_their_section_names() -> None:
    about = runbook.sections()
    asked = yaml.safe_load((ROOT / "deploy/prometheus/alerts.yml").read_text())["groups"][0]
    shown = {
        panel["title"]: {
            name
            for target in panel["targets"]
            for name, labels in re.findall(r"([a-zA-Z_:]+){(.*?)}", target["expr"])
            if labels == ENGINES
        }
        for panel in panels()
    }
    for rule in asked["rules"]:
        for name, labels in re.findall(r"([a-zA-Z_:]+){(.*?)}", rule["expr"]):
            if "-engines" in labels:
                named = [shown[title] for title in runbook.panels(about[rule["alert"]])]
                assert name in set().union(*named), rule["alert"]


def test_units_and_words_say_what_a_number_is() -> None:
    shown = {panel["title"]: panel["fieldConfig"]["defaults"] for panel in panels()}
    assert all(defaults["unit"] for defaults in shown.values())
    assert shown["Tokens per second"]["unit"] == "suffix: tokens/s"
    (words,) = shown["Enough to say so"]["mappings"]
    assert {value: to["text"] for value, to in words["options"].items()} == {
        "0": "not yet",
        "1": "yes",
    }
    for panel in panels():
        named = [target["legendFormat"] for target in panel["targets"]]
        if any("histogram_quantile" in target["expr"] for target in panel["targets"]):
            assert named in (["p50", "p90", "p99"], [""], ["{{instance}}"])


def test_the_panels_that_the_runbook_names_link_to_it() -> None:
    linked = {
        (panel["title"], link["url"]) for panel in panels() for link in panel.get("links", [])
    }
    for alert, section in runbook.sections().items():
        for title in runbook.panels(section):
            assert (title, f"${{runbook:raw}}#{alert.lower()}") in linked
    assert board()["links"][0]["url"] == "${runbook:raw}"


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
    ids = [panel["id"] for panel in board()["panels"]]
    assert len(ids) == len(set(ids))


def test_the_runbook_names_panels_that_exist() -> None:
    titles = {panel["title"] for panel in panels()}
    named = {name for text in runbook.sections().values() for name in runbook.panels(text)}
    assert named - titles == set()
    assert len(named) > 5


def metrics_of(part: str = "") -> dict[str, str]:
    """The rows of docs/metrics.md under headings with this text, by the metric."""
    _, *parts = (ROOT / "docs" / "metrics.md").read_text().split("\n## ")
    shown = "".join(one for one in parts if part in one.partition("\n")[0])
    return dict(re.findall(r"^\| `(ponder_\w+)` (.+)$", shown, re.MULTILINE))


def test_every_metric_that_a_source_names_is_on_the_page() -> None:
    """One that servers export with an option alone needs a row in `metrics.OPTIONS`."""
    makes = r"\w*(Counter|Gauge|Histogram|Summary|Info|Enum)(?:MetricFamily)?\(\s*\"(ponder_\w+)\""
    named = set()
    for folder in ("server", "training", "clients"):
        for path in (ROOT / folder).rglob("*.py"):
            for kind, name in re.findall(makes, path.read_text()):
                named.add(name.removesuffix("_total") + "_total" if kind == "Counter" else name)
    assert {"ponder_engine_resumes_total", "ponder_state_failures_total"} <= named
    assert named - set(metrics_of()) == set()


def test_the_page_of_metrics_says_which_option_and_what_asks() -> None:
    assert set(metrics_of("--redis")) == {"ponder_pool_store_up"}
    assert "ponder_pool_left_ratio" in metrics_of("--pool")
    assert (
        "alert [EmptyAnswers](runbook.md#emptyanswers); panel *Empty answers*"
        in (metrics_of("every server")["ponder_empty_answers_total"])
    )
    assert "record `ponder:holdout:squares`" in metrics_of()["ponder_holdout_quality_squares"]


@pytest.mark.parametrize("method", anytime.HOWTOS)
def test_how_tos_say_of_a_rule_what_was_measured(method: str) -> None:
    """The beginning of the sentence in docs/anytime.md, and of no other verdict."""
    lines = anytime.lines(json.loads(anytime.FOUND.read_text())["models"])
    page = (ROOT / "docs" / "howto" / f"{anytime.HOWTOS[method]}.md").read_text()
    claims = {anytime.claim(method, [verdict]) for verdict in anytime.VERDICTS}
    measured = {claim for claim in claims if lines.get(method, "").startswith(claim)}
    assert {claim for claim in claims if claim in page} == measured
