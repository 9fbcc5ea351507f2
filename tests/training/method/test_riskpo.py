from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from random import Random
from statistics import fmean, stdev
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from ponder.training.method.grpo import GrpoConfig
from ponder.training.method.riskpo import RiskPo
from training.method.scored import after, context, prompt, ranked, scored


def rewards(rng: Random, sizes: list[int]) -> list[float]:
    return [float(rng.random() < 0.5) for size in sizes for _ in range(size)]


def batch(sizes: list[int], found: list[float]) -> Any:
    return scored(sizes, reward=torch.tensor(found), correct=torch.tensor(found) > 0)


def slow(
    sizes: list[int], found: list[float], config: RiskPo, tracked: tuple[float, float] | None
) -> tuple[list[float], tuple[float, float]]:
    """Bundles and papers by dictionaries, one number at a time, as the authors' code walks them."""
    groups, begin = [], 0
    for size in sizes:
        groups.append(list(range(begin, begin + size)))
        begin += size
    names = [hashlib.sha256(prompt(f"q{q}").key.encode()).digest()[:6] for q in range(len(sizes))]
    order = sorted(range(len(sizes)), key=lambda q: names[q])
    papers: dict[int, list[list[int]]] = defaultdict(list)
    for place, q in enumerate(order):
        bundle = place // config.bundle
        for n, i in enumerate(groups[q]):
            if place % config.bundle == 0:
                papers[bundle].append([])
            if n < len(papers[bundle]):
                papers[bundle][n].append(i)
    advantage = [0.0] * len(found)
    scores: dict[int, list[float]] = {}
    for bundle, each in papers.items():
        members = [q for place, q in enumerate(order) if place // config.bundle == bundle]
        whole = [paper for paper in each if len(paper) == len(members)]
        papers[bundle] = whole
        scores[bundle] = [
            sum(found[i] for i in paper) * config.bundle / len(members) for paper in whole
        ]
    everything = [s for each_ in scores.values() for s in each_]
    low, high = tracked or tuple(np.quantile(everything, [config.low, config.high]))
    for bundle, each in papers.items():
        spread = stdev(scores[bundle]) if len(each) > 1 else 1.0
        for paper, score in zip(each, scores[bundle], strict=True):
            between = max(score - low, 0) - max(score - high, 0)
            between += (low - high) * config.natural_baseline
            worth = between / (config.high - config.low)
            worth = (config.mix * -max(low - score, 0) / config.low + worth) / (config.mix + 1)
            worth /= spread + 1e-6
            of = {i: next(group for group in groups if i in group) for i in paper}
            ratio = {i: found[i] - fmean(found[k] for k in of[i]) for i in paper}
            total = sum(ratio.values())
            split = {i: ratio[i] / total if abs(total) > 1e-6 else 1 / len(paper) for i in paper}
            for i in paper:
                advantage[i] = worth * (1 if config.credit == "uniform" else split[i])
    below = [fmean(s < q for s in everything) for q in (low, high)]
    return advantage, (
        low + config.rate * (config.low - below[0]),
        high + config.rate * (config.high - below[1]),
    )


@pytest.mark.parametrize("credit", ["uniform", "sum_mean"])
@pytest.mark.parametrize("baseline", [False, True])
def test_the_slow_way_says_the_same_over_steps(credit: Any, baseline: bool) -> None:
    rng = Random(5)
    for _ in range(20):
        config = RiskPo(bundle=rng.randint(1, 4), credit=credit, natural_baseline=baseline)
        sizes = [rng.randint(1, 5) for _ in range(rng.randint(1, 9))]
        state: dict[str, Any] = {}
        tracked = None
        for _ in range(3):
            found = rewards(rng, sizes)
            expected, tracked = slow(sizes, found, config, tracked)
            advantage = config(batch(sizes, found), context(state))["advantage"].tolist()
            assert advantage == pytest.approx(expected, rel=1e-4, abs=1e-4)
            assert state["riskpo"] == pytest.approx(list(tracked))


def test_what_a_checkpoint_keeps_goes_on_as_if_it_had_not_stopped() -> None:
    rng, config, sizes = Random(2), RiskPo(), [4] * 6
    state: dict[str, Any] = {}
    for _ in range(3):
        config(batch(sizes, rewards(rng, sizes)), context(state))
    resumed = json.loads(json.dumps(state))
    last = batch(sizes, rewards(rng, sizes))
    first, again = config(last, context(state)), config(last, context(resumed))
    assert torch.equal(first["advantage"], again["advantage"]) and state == resumed


def test_processes_agree_on_bundles_and_quantiles() -> None:
    sizes, config = [4] * 6, RiskPo(bundle=2)
    whole = batch(sizes, rewards(Random(8), sizes))
    parts = [whole.groups([q % 2 == r for q in range(6)]) for r in range(2)]
    state: dict[str, Any] = {}
    alone = config(whole, context(state))
    found, states = ranked(parts, config)
    for rank, part in enumerate(found):
        expected = alone.groups([q % 2 == rank for q in range(6)])["advantage"]
        assert torch.allclose(part["advantage"], expected)
    assert states == [state, state]


def test_it_takes_the_place_of_the_groups_std() -> None:
    added = GrpoConfig(group_size=4, add=[{"riskpo": {"bundle": 1}}])
    found = after(added, scored([4], correct=[1, 0, 0, 0]))["advantage"]
    expected = RiskPo(bundle=1)(batch([4], [1.0, 0, 0, 0]), context())["advantage"]
    assert torch.equal(found, expected)


def test_levels_rise() -> None:
    with pytest.raises(ValidationError, match="swap them"):
        RiskPo(low=0.8, high=0.2)


def test_a_step_without_groups_says_nothing() -> None:
    state: dict[str, Any] = {}
    found = RiskPo()(batch([], []), context(state))["advantage"]
    assert len(found) == 0 and not state
