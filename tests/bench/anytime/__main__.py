"""`python -m tests.bench.anytime`: every way of ending a thought early against the best plain cap.

A task of which a model, thinking freely, has less than a tenth right is left out for that model.
On one half of the problems the best plain cap and each method's setting are chosen, on the other
they are compared: the same problems, the same seeds, every token counted. Caps are measured as
`ponder calibrate` does, by the code that serves: one thought per problem and seed, cut at all of
them. Exits and strategies are asked of a real `ponder serve`. An answer is a row of a file, with
which an interrupted run, or one with more problems, goes on.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import Any

from ponder.tasks.sources import SOURCES, find_tasks
from ponder.tasks.workers import VerifierPool
from ponder.thought.contract import Contract

from .. import machine
from ..errors import BenchError, ended
from ..scenario import BUNDLED, RESULTS, ROOT
from . import wall
from .arms import CAPS, FREE, METHODS, caps, exits, strategies
from .findings import MARGIN
from .measure import SPLITS, Asker, Asking, answerable, drawn, serving
from .result import Result, plot
from .rows import Rows


def main() -> int:
    options = _options()
    return ended(lambda: _compare(options))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.anytime", description=__doc__, allow_abbrev=False
    )
    add = parser.add_argument
    add("--model", type=Path, nargs="+", default=[BUNDLED], help="model directories")
    add("--tasks", nargs="+", default=["tiny"], help=SOURCES)
    add("--n", type=int, default=120, help="problems of each task that report; half as many choose")
    add("--seeds", type=int, default=3, help="thoughts per problem")
    add("--seed", type=int, default=0, help="of the problems and of the sampling")
    add("--methods", nargs="+", choices=METHODS, default=METHODS, help="that a server is asked for")
    add("--caps", type=int, nargs="+", default=list(CAPS), help="plain caps in thinking tokens")
    add("--rounds", type=int, default=3, help="in which the chosen settings are timed")
    add("--prefix", default="The answer is", help="what the answer of a probe begins with")
    add("--rows", type=Path, default=RESULTS / "anytime", help="directory of the answers")
    add("--out", type=Path, default=ROOT / "docs" / "anytime.json", help="the plots lie beside it")
    return parser.parse_args()


def _compare(options: argparse.Namespace) -> None:
    if len({model.name for model in options.model}) < len(options.model):
        raise BenchError("two models have one name: give their directories different ones")
    said = []
    with VerifierPool() as pool:
        for model in options.model:
            said.append(_model(options, model, pool))
            _write(options, said)
    print(f"wrote {options.out}; the page: .venv/bin/python deploy/generate.py")


def _model(options: argparse.Namespace, model: Path, pool: VerifierPool) -> dict[str, Any]:
    contract = Contract.load(model)
    if contract is None:
        raise BenchError(f"{model} has no ponder.json: `ponder contract {model} --write` makes one")
    tasks = find_tasks(options.tasks)
    numbers = {"choosing": options.n // 2, "reporting": options.n}
    asking = Asking(
        model,
        {half: drawn(tasks, numbers[half], half, options.seed) for half in SPLITS},
        options.seeds,
        options.seed,
    )
    found = Rows(options.rows / f"{model.name}.jsonl", asking.settings())
    plain = caps(sorted(set(options.caps)), contract.trained_budgets)
    asyncio.run(Asker(asking, found, pool).caps("choosing", plain))
    asking, left_out = answerable(asking, found)
    asker = Asker(asking, found, pool)
    asyncio.run(asker.caps("reporting", plain))
    result = Result(asking, found, plain)
    known = [*exits(result.thought, options.prefix), *strategies(result.thought, options.prefix)]
    tried = [arm for arm in known if arm.method in options.methods]
    timed: dict[str, Any] = {}
    with ExitStack() as stack:
        log = options.rows / f"{model.name}.log"
        url = cache(lambda: stack.enter_context(serving(model, log)))
        asyncio.run(asker.exits("choosing", tried, url))
        chosen = result.chosen(tried)
        asyncio.run(asker.exits("reporting", chosen, url))
        timed_arms = [result.best, FREE, *(arm for arm in chosen if arm.method != "deadline")]
        arms = list(dict.fromkeys(timed_arms))
        file = options.rows / f"{model.name}-wall.json"
        for rounds in wall.measure(asking, arms, url, file, options.rounds):
            timed = wall.as_json(rounds, result.best)
            print(f"{model.name}  {len(rounds)} timed rounds", flush=True)
    return {**result.as_json(tried, timed), "left_out": left_out}


def _write(options: argparse.Namespace, said: list[dict[str, Any]]) -> None:
    content = {
        "machine": machine.describe(),
        "settings": {
            "tasks": options.tasks,
            "n": options.n,
            "seeds": options.seeds,
            "seed": options.seed,
            "temperature": 1.0,
            "prefix": options.prefix,
            "margin": MARGIN,
        },
        "models": said,
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(_rounded(content), indent=1) + "\n", encoding="utf-8")
    for one in said:
        plot(one, options.out.with_suffix("") / one["model"])


def _rounded(value: Any) -> Any:
    """Numbers to the fourth place: what follows is noise."""
    if isinstance(value, dict):
        return {name: _rounded(it) for name, it in value.items()}
    if isinstance(value, (list, tuple)):
        return [_rounded(it) for it in value]
    return round(value, 4) if isinstance(value, float) else value


if __name__ == "__main__":
    sys.exit(main())
