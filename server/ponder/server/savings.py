"""The savings experiment: its arms and ledger from the settings, its report from the totals."""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
from collections.abc import Iterator
from dataclasses import asdict

from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    Metric,
    SummaryMetricFamily,
)
from prometheus_client.registry import Collector

from ponder.experiment.holdout import ARMS, LOAD_ARMS, Arm, Holdout
from ponder.experiment.ledger import Ledger
from ponder.experiment.measures import COSTS, SIGNALS
from ponder.experiment.moments import Moments
from ponder.protocol.savings import MeasureReport, QualityReport, SavingsReport, SheddingReport
from ponder.server.model import ServedModel
from ponder.server.settings import Settings
from ponder.thought.curve import Calibration

_SUMS = (
    ("squares", "sum of each conversation's squared sum"),
    ("products", "sum of each conversation's sum times its count"),
    ("count_squares", "sum of each conversation's squared count"),
    ("conversations", "number of conversations"),
)


def holdout(settings: Settings) -> Holdout:
    """The draw of the holdout. Without a key, a random one only makes pseudonyms."""
    key = settings.holdout_key
    secret = key.get_secret_value().encode() if key else secrets.token_bytes(32)
    return Holdout(settings.holdout, secret)


def load_holdout(policy: Holdout) -> Holdout:
    """A second draw, as large as the holdout's, of conversations without load shedding."""
    key = hmac.digest(policy.key, b"load shedding", hashlib.sha256)
    return Holdout(policy.share, key, LOAD_ARMS)


def open_ledger(settings: Settings, model: ServedModel) -> Ledger:
    """The ledger of the experiment that these settings define. Raises `StateError`.

    A retrained checkpoint is another model, even under the same name.
    """
    contract = model.checkpoint.contract
    calibration = contract and contract.calibration
    experiment = {
        "model": model.name,
        "trained": contract and [contract.base_model, contract.recipe_sha256, contract.seed],
        "default_budget": settings.default_budget,
        **({"calibration": _digest(calibration)} if calibration else {}),
        "budget_ceiling": settings.budget_ceiling,
        "default_deadline_ms": settings.default_deadline_ms,
        "hint": settings.hint,
        "loop_exit": settings.loop_exit,
        "holdout": settings.holdout,
        "draw": holdout(settings).assign("").conversation if settings.holdout else None,
        **({} if settings.shed_load == "off" else {"shed_load": settings.shed_load}),
        **({"pool": settings.pool, "on_exhausted": settings.on_exhausted} if settings.pool else {}),
    }
    return Ledger(settings.state, json.dumps(experiment))


def _digest(calibration: Calibration) -> str:
    """Names a calibration: a row for each of many tasks is more than a database's index holds."""
    return hashlib.sha256(json.dumps(asdict(calibration)).encode()).hexdigest()


async def report(ledger: Ledger, share: float, *, sheds: bool = False) -> SavingsReport:
    """Report the savings of everything written until now; `sheds` adds load shedding.

    Raises `StateError`.
    """
    totals = await ledger.refresh()

    def measured(measure: str, arms: tuple[Arm, Arm] = ARMS) -> MeasureReport:
        policy, holdout = (totals.get((arm, measure), Moments()) for arm in arms)
        return MeasureReport.of(policy, holdout, share)

    tokens = measured("tokens")
    return SavingsReport(
        status=tokens.status,
        more_requests_needed=tokens.more_needed,
        holdout=share,
        experiment=ledger.experiment,
        since=ledger.started_at,
        tokens=tokens,
        seconds=measured("seconds"),
        quality=QualityReport(**{signal: measured(signal) for signal in SIGNALS}),
        load=SheddingReport(
            **{name: measured(name, LOAD_ARMS) for name in SheddingReport.model_fields}
        )
        if sheds
        else None,
    )


class SavingsCollector(Collector):
    """`ponder_holdout_*`: six sums per arm and measure, from which PromQL can compute the report.

    The sums are totals of the state, not of the process: processes that share a state export the
    same ones, under the same `experiment`.
    """

    def __init__(self, ledger: Ledger, share: float) -> None:
        self._ledger = ledger
        self._share = share

    def collect(self) -> Iterator[Metric]:
        yield GaugeMetricFamily(
            "ponder_holdout_share",
            "Share of the conversations that --holdout draws, from 0 to 1",
            self._share,
        )
        yield CounterMetricFamily(
            "ponder_state_failures",
            "Reads and writes of the savings' state that failed",
            self._ledger.failures,
        )
        yield CounterMetricFamily(
            "ponder_state_lost_entries",
            "Entries of the savings that the server never wrote to the state",
            self._ledger.lost,
        )
        yield GaugeMetricFamily(
            "ponder_state_pending_entries",
            "Entries of the savings that wait to be written to the state",
            self._ledger.pending,
        )
        for cost in COSTS:
            yield from self._family(cost, f"{cost.capitalize()} that requests took", (cost,))
        yield from self._family("quality", "Quality of answers, by signal", SIGNALS, ["signal"])

    def _family(
        self, name: str, text: str, measures: tuple[str, ...], labels: list[str] | None = None
    ) -> Iterator[Metric]:
        name, labels = f"ponder_holdout_{name}", ["experiment", "arm", *(labels or [])]
        sums = SummaryMetricFamily(name, text, labels=labels)
        others = {
            key: GaugeMetricFamily(f"{name}_{key}", f"{text}: {what}", labels=labels)
            for key, what in _SUMS
        }
        for (arm, measure), moments in sorted(self._ledger.totals.items()):
            if measure not in measures or arm not in ARMS:
                continue
            values = [self._ledger.experiment, arm, *([measure] if len(labels) > 2 else [])]
            sums.add_metric(values, round(moments.count), moments.total)
            for key, family in others.items():
                family.add_metric(values, getattr(moments, key))
        yield sums
        yield from others.values()
