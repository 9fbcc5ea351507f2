"""`python -m studies.bundled`: make the bundled checkpoint again, and measure what it saves.

Trains the cold start and the candidates, chooses a candidate on validation problems, measures all
on test problems and writes docs/frontier.json, docs/frontier.md and its plot. What is finished in
WORK is kept: start it again to go on.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ponder.evaluation.tables import machine
from ponder.tasks.problems import Split
from ponder.thought.contract import FILE_NAME

from .answers import Measured, as_json, from_json, measure
from .candidates import CANDIDATES, COLD_START, MODES
from .report import Record, chosen, page, plot

ROOT = Path(__file__).resolve().parents[2]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m studies.bundled", description=__doc__, allow_abbrev=False
    )
    parser.add_argument("--work", type=Path, default=ROOT / "runs/bundled", help="of the runs")
    parser.add_argument("--out", type=Path, default=ROOT / "docs", help="directory of the page")
    parser.add_argument("--jobs", type=int, default=2, help="candidates trained side by side")
    options = parser.parse_args(argv)
    cold = options.work / COLD_START
    _train(COLD_START, cold, "--threads", str(options.jobs))
    base = ("--base", str(cold), "--threads", "1")
    with ThreadPoolExecutor(options.jobs) as pool:
        runs = [
            pool.submit(_train, recipe, options.work / name, *base, *changes)
            for name, (recipe, *changes) in CANDIDATES.items()
        ]
        for run in runs:
            run.result()
    validation, test = (
        {name: _measured(options.work / name, split) for name in MODES}
        for split in ("validation", "test")
    )
    choice = chosen(validation)
    weights = (options.work / choice.name / "model.safetensors").read_bytes()
    record = Record(machine(), choice, hashlib.sha256(weights).hexdigest(), test)
    record.write(options.out / "frontier.json")
    (options.out / "frontier.md").write_text(page(record), encoding="utf-8")
    plot(test, options.out / "frontier" / "tokens")
    print(f"chosen: {options.work / choice.name}\nthe page: {options.out / 'frontier.md'}")
    return 0


def _train(recipe: str, out: Path, *flags: str) -> None:
    """Train, or go on where an earlier run stopped. Raises `CalledProcessError`."""
    if (out / FILE_NAME).exists():  # an export writes it last
        return
    out.parent.mkdir(parents=True, exist_ok=True)
    resume = ["--resume"] if (out / "checkpoints").exists() else []
    command = [sys.executable, "-m", "ponder.cli.main", "train", recipe, "--out", str(out)]
    subprocess.run([*command, *flags, *resume], check=True)


def _measured(checkpoint: Path, split: Split) -> Measured:
    """The checkpoint's answers, from an earlier run where there are."""
    file = checkpoint.with_name(f"{checkpoint.name}-{split}.json")
    if not file.exists():
        found = measure(checkpoint, split, MODES[checkpoint.name])
        file.write_text(json.dumps(as_json(found)), encoding="utf-8")
    return from_json(json.loads(file.read_text(encoding="utf-8")))


if __name__ == "__main__":
    sys.exit(main())
