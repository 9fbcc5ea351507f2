"""Generates the Prometheus operator's object from Prometheus' rule files."""

from __future__ import annotations

from pathlib import Path

import yaml

PROMETHEUS = Path(__file__).resolve().parents[1] / "prometheus"
HEAD = "# Written by deploy/generate.py out of deploy/prometheus/savings.yml and alerts.yml.\n"


def render() -> str:
    files = [(PROMETHEUS / name).read_text() for name in ("savings.yml", "alerts.yml")]
    rule = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "ponder"},
        "spec": {"groups": [group for text in files for group in yaml.safe_load(text)["groups"]]},
    }
    return HEAD + yaml.safe_dump(rule, sort_keys=False, width=100)
