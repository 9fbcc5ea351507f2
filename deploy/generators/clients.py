"""Generates docs/clients.md from the results of the last run of `make test-clients`."""

from __future__ import annotations

import json
from itertools import groupby
from pathlib import Path

FOUND = Path(__file__).resolve().parents[2] / "docs" / "clients.json"
WORDS = Path(__file__).with_suffix(".md")


def render() -> str:
    """The page."""
    found = json.loads(FOUND.read_text(encoding="utf-8")).values()
    rows = []
    for (client, version), deeds in groupby(found, lambda row: (row["client"], row["version"])):
        for place, row in enumerate(deeds):
            who = f"{client} | {version}" if place == 0 else "|"
            rows.append(f"| {who} | {row['does']} | {row['verdict']} |\n")
    return WORDS.read_text(encoding="utf-8") + "".join(rows)
