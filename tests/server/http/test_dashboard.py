"""The dashboard, the alerts and the recording rules ask for what the server exports, by its labels,
and docs/metrics.md lists it.

With a real engine and Prometheus tests/integration/test_monitoring.py asks every query.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import httpx
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from .conftest import Serve

DEPLOY = Path(__file__).parents[3] / "deploy"
METRICS = DEPLOY.with_name("docs") / "metrics.md"
TARGET = {"job", "instance"}  # labels that Prometheus adds


def asked() -> Iterator[str]:
    board = json.loads((DEPLOY / "grafana" / "ponder.json").read_text())
    yield from (target["expr"] for p in board["panels"] for target in p.get("targets", []))
    yield from (str(variable.get("query")) for variable in board["templating"]["list"])
    for name in ("alerts.yml", "savings.yml"):
        groups = yaml.safe_load((DEPLOY / "prometheus" / name).read_text())["groups"]
        yield from (rule["expr"] for group in groups for rule in group["rules"])
    scaled = (DEPLOY / "kubernetes/overlays/fleet/scaledobject.yaml").read_text()
    yield from re.findall(r"query: (.+)", scaled)


@pytest.fixture
def exported(serve: Serve) -> dict[str, set[str]]:
    """The labels of every metric of a server that has answered and refused, on any engine."""
    import_module("ponder.engine.http")
    running = serve(
        "thought</think>answer",
        holdout=0.5,
        holdout_key="a key for the tests",
        pool=["tenant=1000000/1h"],
        shed_load="unasked",
        redis="redis://127.0.0.1:1/0",  # nobody listens there
    )
    for user in range(8):
        running.ask(user=str(user))
    assert httpx.post(f"{running.url}/v1/chat/completions", json={}).status_code == 400
    running.service.metrics.refused("evicted")  # which the listener does, and this has none
    text = httpx.get(f"{running.url}/metrics").text
    labels: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels.setdefault(sample.name, set()).update(sample.labels)
    return labels


def counted(url: str) -> set[tuple[str, tuple[tuple[str, str], ...]]]:
    """The series of Ponder's counters and histograms, by name and labels."""
    text = httpx.get(f"{url}/metrics").text
    return {
        (sample.name, tuple(sorted(sample.labels.items())))
        for family in text_string_to_metric_families(text)
        if family.type in ("counter", "histogram") and family.name.startswith("ponder_")
        for sample in family.samples
    }


def test_every_series_begins_before_its_first_increase(serve: Serve) -> None:
    """`rate` is 0 over a series that begins at 1, and an absent one silences sums that it is in."""
    running = serve(
        "thought</think>answer",
        holdout=0.5,
        holdout_key="a key for the tests",
        pool=["tenant=1000000/1h", "conversation=1000000/1h"],
        shed_load="unasked",
    )
    before = counted(running.url)
    for user in range(8):
        running.ask(user=str(user), ponder={"deadline_ms": 600_000})
    assert httpx.post(f"{running.url}/v1/chat/completions", json={}).status_code == 400
    assert counted(running.url) - before == set()


def test_what_is_asked_for_is_exported(exported: dict[str, set[str]]) -> None:
    names = {name for query in asked() for name in re.findall(r"\bponder_\w+\b(?![(.|])", query)}
    assert len(names) >= 20
    assert names - set(exported) == set()


def test_labels_that_are_chosen_by_exist(exported: dict[str, set[str]]) -> None:
    unknown = []
    for query in asked():
        for name, selector in re.findall(r"\b(ponder_\w+){(.*?)}", query):
            chosen = set(re.findall(r"(\w+)(?==|!=)", selector))
            unknown += [(name, label) for label in chosen - TARGET - exported[name]]
    assert unknown == []


def test_the_page_of_metrics_has_all_that_is_exported(exported: dict[str, set[str]]) -> None:
    rows = re.findall(r"^\| `(ponder_\w+)` \|[^|]*\|([^|]*)\|", METRICS.read_text(), re.MULTILINE)
    listed = {
        name: set(re.findall(r"`(\w+)`", re.sub(r"\(.*?\)", "", cell))) for name, cell in rows
    }
    assert len(listed) == len(rows), "a metric has two rows"
    for name, labels in exported.items():
        if name.startswith("ponder_"):
            family = name if name in listed else re.sub(r"_(bucket|sum|count)$", "", name)
            assert listed[family] == labels - {"le"}, name
