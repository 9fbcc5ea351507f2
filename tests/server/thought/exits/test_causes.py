"""The table of causes is what everybody says of them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

from ponder.thought.exits.causes import CAUSES, Cause

ROOT = Path(__file__).parents[4]


def test_every_cause_has_a_row() -> None:
    assert tuple(CAUSES) == get_args(Cause)


def test_the_readme_says_what_the_table_says() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (.+) \|$", (ROOT / "README.md").read_text(), re.MULTILINE)
    said = {cause: means for cause, means in rows if cause in CAUSES}
    assert said == {cause: info.means for cause, info in CAUSES.items()}


def test_alerts_name_causes_of_the_table() -> None:
    alerts = (ROOT / "deploy/prometheus/alerts.yml").read_text()
    named = re.findall(r'end_cause!~"([\w|]+)"', alerts)
    assert named
    without = {cause for cause, info in CAUSES.items() if info.ended_by is None}
    assert [set(causes.split("|")) for causes in named] == [without] * len(named)
