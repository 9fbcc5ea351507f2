"""docs/howto/fleet.md quotes the benchmark as it was measured."""

from __future__ import annotations

import json
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_page_quotes_what_was_measured() -> None:
    measured = json.loads((ROOT / "docs" / "benchmark-fleet.json").read_text())
    figures = {line["figure"]: line for line in measured["figures"]}
    page = (ROOT / "docs" / "howto" / "fleet.md").read_text()
    section = page.split("## What it costs")[1].split("\n## ")[0]
    quoted = re.findall(r"^\| (.+?) \| ([\d.]+) \|", section, re.MULTILINE)
    assert len(quoted) == len(figures)
    for figure, value in quoted:
        assert f"{figures[figure]['median']:.2f}" == value, figure
