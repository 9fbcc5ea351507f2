"""The recording rules compute the estimator that the server documents, from what it exports."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from .conftest import DEPLOY

Z = 1.959963984540054


@dataclass
class Arm:
    """Conversations as (requests, summed value), and what is said of them by definition."""

    conversations: list[tuple[int, float]]

    @property
    def count(self) -> int:
        return sum(n for n, _ in self.conversations)

    @property
    def mean(self) -> float:
        return sum(y for _, y in self.conversations) / self.count

    @property
    def variance(self) -> float:
        k = len(self.conversations)
        residuals = sum((y - self.mean * n) ** 2 for n, y in self.conversations)
        return k / (k - 1) * residuals / self.count**2

    def exported(self) -> dict[str, float]:
        return {
            "sum": sum(y for _, y in self.conversations),
            "count": self.count,
            "squares": sum(y * y for _, y in self.conversations),
            "products": sum(y * n for n, y in self.conversations),
            "count_squares": sum(n * n for n, _ in self.conversations),
            "conversations": len(self.conversations),
        }


def drawn(seed: int, conversations: int, value: float) -> Arm:
    source = random.Random(seed)
    sizes = [source.randint(1, 6) for _ in range(conversations)]
    return Arm([(n, sum(source.expovariate(1 / value) for _ in range(n))) for n in sizes])


def series(measure: str, arm: str, experiment: str, data: Arm, **labels: str) -> list[object]:
    """As two processes on one state file export them: twice the same."""
    more = "".join(f',{name}="{value}"' for name, value in labels.items())
    return [
        {
            "series": f'ponder_holdout_{measure}_{part}{{job="ponder",instance="{instance}",'
            f'arm="{arm}",experiment="{experiment}"{more}}}',
            "values": f"{value!r}x3",
        }
        for part, value in data.exported().items()
        for instance in ("a", "b")
    ]


@pytest.fixture
def holds(promtool: Callable[..., str], tmp_path: Path) -> Callable[..., None]:
    """Assert that recorded series have the expected values, to nine digits."""

    def check(inputs: list[object], expected: dict[str, float], absent: Sequence[str] = ()) -> None:
        tests: list[dict[str, object]] = [
            {
                "expr": f"abs({name} / ({value!r}) - 1) < bool 1e-9" if value else f"{name} + 1",
                "eval_time": "2m",
                "exp_samples": [{"labels": labels_of(name), "value": 1}],
            }
            for name, value in expected.items()
        ]
        tests += [{"expr": f"ponder:savings:{name}", "eval_time": "2m"} for name in absent]
        case = {"interval": "1m", "input_series": inputs, "promql_expr_test": tests}
        rules = str(DEPLOY / "prometheus" / "savings.yml")
        (tmp_path / "case.yml").write_text(yaml.safe_dump({"rule_files": [rules], "tests": [case]}))
        promtool("test", "rules", tmp_path / "case.yml")

    return check


def labels_of(name: str) -> str:
    selected = name[name.index("{") + 1 : -1]
    return f'{{job="ponder",{selected}}}'


def test_a_clustered_interval_of_difference_and_ratio(holds: Callable[..., None]) -> None:
    policy, holdout = drawn(1, 900, 40.0), drawn(2, 250, 100.0)
    margin = Z * math.sqrt(policy.variance + holdout.variance)
    ratio = policy.mean / holdout.mean
    relative = policy.variance / policy.mean**2 + holdout.variance / holdout.mean**2
    factor = math.exp(Z * math.sqrt(relative))
    inputs = [*series("tokens", "policy", "e", policy), *series("tokens", "holdout", "e", holdout)]
    tokens = '{measure="tokens"}'
    difference = policy.mean - holdout.mean
    holds(
        inputs,
        {
            'ponder:holdout:mean{arm="policy",measure="tokens"}': policy.mean,
            'ponder:holdout:variance{arm="holdout",measure="tokens"}': holdout.variance,
            f"ponder:savings:difference{tokens}": difference,
            f"ponder:savings:difference_lower{tokens}": difference - margin,
            f"ponder:savings:difference_upper{tokens}": difference + margin,
            f"ponder:savings:ratio{tokens}": ratio,
            f"ponder:savings:ratio_lower{tokens}": ratio / factor,
            f"ponder:savings:ratio_upper{tokens}": ratio * factor,
            f"ponder:savings:measured{tokens}": 1.0,
        },
    )


def test_an_arm_whose_values_are_equal_takes_the_others_spread(holds: Callable[..., None]) -> None:
    policy = Arm([(1, 1.0)] * 10 + [(2, 0.0)] * 600)
    holdout = Arm([(1, 0.0)] * 250)
    spread = policy.variance * policy.count / holdout.count
    margin = Z * math.sqrt(policy.variance + spread)
    inputs = [
        *series("quality", "policy", "e", policy, signal="empty"),
        *series("quality", "holdout", "e", holdout, signal="empty"),
    ]
    empty = 'measure="quality",signal="empty"'
    holds(
        inputs,
        {
            f'ponder:holdout:variance{{arm="policy",{empty}}}': policy.variance,
            f'ponder:holdout:variance{{arm="holdout",{empty}}}': spread,
            f"ponder:savings:difference_lower{{{empty}}}": policy.mean - margin,
            f"ponder:savings:difference_upper{{{empty}}}": policy.mean + margin,
        },
    )


def test_experiments_of_several_state_files_add_up(holds: Callable[..., None]) -> None:
    one, other, holdout = drawn(3, 300, 40.0), drawn(4, 200, 60.0), drawn(5, 200, 100.0)
    both = Arm([*one.conversations, *other.conversations])
    holds(
        [
            *series("seconds", "policy", "e", one),
            *series("seconds", "policy", "f", other),
            *series("seconds", "holdout", "e", holdout),
        ],
        {
            'ponder:holdout:mean{arm="policy",measure="seconds"}': both.mean,
            'ponder:holdout:variance{arm="policy",measure="seconds"}': both.variance,
            'ponder:savings:difference{measure="seconds"}': both.mean - holdout.mean,
            'ponder:savings:measured{measure="seconds"}': 1.0,
        },
    )


def test_signals_of_quality_are_kept_apart(holds: Callable[..., None]) -> None:
    inputs, expected = [], {}
    for seed, signal in enumerate(("feedback", "forced")):
        policy, holdout = drawn(seed, 220, 0.4), drawn(10 + seed, 210, 0.5)
        inputs += series("quality", "policy", "e", policy, signal=signal)
        inputs += series("quality", "holdout", "e", holdout, signal=signal)
        name = f'ponder:savings:difference{{measure="quality",signal="{signal}"}}'
        expected[name] = policy.mean - holdout.mean
    holds(inputs, expected)


def test_without_enough_conversations_nothing_is_said(holds: Callable[..., None]) -> None:
    policy, holdout = drawn(7, 900, 40.0), drawn(8, 199, 100.0)
    inputs = [*series("tokens", "policy", "e", policy), *series("tokens", "holdout", "e", holdout)]
    tokens = 'measure="tokens"'
    holds(
        inputs,
        {
            f"ponder:savings:measured{{{tokens}}}": 0.0,
            f'ponder:holdout:mean{{arm="holdout",{tokens}}}': holdout.mean,
        },
        absent=["difference", "difference_lower", "difference_upper", "ratio", "ratio_upper"],
    )


def test_one_arm_alone_is_never_measured(holds: Callable[..., None]) -> None:
    inputs = series("tokens", "policy", "e", drawn(6, 500, 40.0))
    holds(inputs, {'ponder:savings:measured{measure="tokens"}': 0.0})
