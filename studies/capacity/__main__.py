"""`python -m studies.capacity`: how a fleet behaves that is larger than any machine here.

Simulates every scenario in a few minutes and writes docs/capacity.json, docs/capacity.md and its
plots. Name a scenario to simulate it alone.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from .profiles import ROOT, h100
from .report import draw_all, page
from .scenarios import SCENARIOS, Row
from .validation import checks

Found = Mapping[str, Sequence[Row]]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m studies.capacity", description=__doc__, allow_abbrev=False
    )
    parser.add_argument(
        "scenarios", nargs="*", metavar="SCENARIO", help=f"simulate anew: {', '.join(SCENARIOS)}"
    )
    parser.add_argument("--out", type=Path, default=ROOT / "docs", help="directory of the page")
    options = parser.parse_args(argv)
    unknown = set(options.scenarios) - set(SCENARIOS)
    if unknown:
        parser.error(f"no scenario {min(unknown)}: {', '.join(SCENARIOS)}")
    stored = options.out / "capacity.json"
    before = read(stored) if stored.exists() else {}
    found: dict[str, Sequence[Row]] = {}
    for name, simulate in SCENARIOS.items():
        began = time.monotonic()
        if options.scenarios and name not in options.scenarios:
            if name in before:
                found[name] = before[name]
            continue
        found[name] = simulate()
        print(f"{name}: {len(found[name])} points in {time.monotonic() - began:.0f} s", flush=True)
    write(stored, found)
    draw_all(found, options.out / "capacity")
    (options.out / "capacity.md").write_text(page(h100(), checks(), found), encoding="utf-8")
    print(f"the page: {options.out / 'capacity.md'}")
    return 0


def write(path: Path, found: Found) -> None:
    """Write every figure of every seed as JSON; an infinite figure becomes null."""
    data = {
        name: [
            {"arm": row.arm, "x": row.x, "seeds": [_finite(one) for one in row.seeds]}
            for row in rows
        ]
        for name, rows in found.items()
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data) + "\n", encoding="utf-8")


def read(path: Path) -> dict[str, Sequence[Row]]:
    """Read the figures that `write` wrote."""
    data = json.loads(path.read_text(encoding="utf-8"))
    return {
        name: [
            Row(row["arm"], row["x"],
                [{k: math.inf if v is None else v for k, v in one.items()} for one in row["seeds"]])
            for row in rows
        ]
        for name, rows in data.items()
    }  # fmt: skip


def _finite(figures: Mapping[str, float]) -> dict[str, float | None]:
    return {
        name: round(value, 4) if math.isfinite(value) else None for name, value in figures.items()
    }


if __name__ == "__main__":
    sys.exit(main())
