"""The records of the study: the finished runs, the tuned rates, and the runs still missing."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .arms import ARMS, PROTOCOL_VERSION, Base, Planned, plan, tuning_runs

Record = Mapping[str, Any]

COLD_START = "cold-start"

_TOKEN_PRICE = 0.1  # accuracy that all of the cold start's thinking tokens are worth


def read_records(results: Path) -> list[Record]:
    return [json.loads(path.read_text()) for path in sorted(results.glob("runs/*.json"))]


def diverged(record: Record) -> bool:
    """Whether the run's loss ceased to be finite."""
    return "diverged" in record


@dataclass(frozen=True, slots=True)
class Recorded:
    """A measured cold start, and the recorded runs on its weights and with its code.

    The current plan says which of the runs count; the others belong to earlier versions of the
    protocol.
    """

    base: Base
    cold: Record
    runs: Sequence[Record]

    @classmethod
    def of(cls, records: Sequence[Record], cold: Record, base: Base) -> Recorded:
        runs = [r for r in records if r["kind"] != COLD_START and base.made(r)]
        return cls(base, cold, runs)

    def rates(self) -> dict[str, float]:
        """The learning rate that tuning chose for each arm whose trials are all recorded."""
        trials: dict[str, list[Record | None]] = defaultdict(list)
        for planned in self._tuning():
            trials[planned.arm.name].append(self._find(planned))
        rates = {}
        for name, records in trials.items():
            done = [record for record in records if record is not None]
            held = [record for record in done if not diverged(record)]
            if held and len(done) == len(records):
                best = max(held, key=lambda record: self.score(record["validations"][-1]))
                rates[name] = best["recipe"]["optimisation"]["learning_rate"]
        return rates

    def score(self, validation: Record) -> float:
        """Accuracy less the price of thinking tokens, counted in units of the cold start's."""
        price = _TOKEN_PRICE / self._cold_tokens()
        return float(validation["accuracy"] - price * validation["thinking_tokens"])

    def _cold_tokens(self) -> float:
        """The cold start's thinking tokens on the validation problems, where every run begins."""
        return float(next(r["validations"][0]["thinking_tokens"] for r in self.runs))

    def total(self) -> int:
        """Runs of the whole plan: the trials, and the scored ones, tuned or not."""
        return len(self._tuning()) + sum(len(arm.seeds) for arm in ARMS)

    def missing(self) -> list[Planned]:
        """Runs without a record, in the plan's order; scored runs only once their arm is tuned."""
        return [run for run in self._plan() if self._find(run) is None]

    def counted(self) -> list[Record]:
        """The records that the plan asks for, in its order."""
        found = map(self._find, self._plan())
        return [record for record in found if record is not None]

    def earlier(self) -> list[Record]:
        """The records that the plan does not ask for."""
        counted = {record["key"] for record in self.counted()}
        return [record for record in self.runs if record["key"] not in counted]

    def _plan(self) -> list[Planned]:
        return plan(self.base, self.rates())

    def _tuning(self) -> list[Planned]:
        return tuning_runs(self.base)

    def _find(self, run: Planned) -> Record | None:
        """A trial of any version counts; a scored run counts only under the current protocol."""
        wanted = (run.arm.name, run.sha256)
        since = 0 if run.kind == "tuning" else PROTOCOL_VERSION
        found = (r for r in self.runs if (r["arm"], r["recipe_sha256"]) == wanted)
        return next((record for record in found if record["protocol"] >= since), None)
