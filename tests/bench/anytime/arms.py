"""What is compared: plain caps, and every exit with its settings, each as a request asks for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ponder.thought.budget import UNLIMITED

CAPS = (32, 64, 96, 128, 160, 192, 256)
"""Thinking tokens, for thoughts of about a hundred."""
AGREEMENT = {32: (2, 3, 4), 64: (2,), 128: (2, 3), 256: (2, 3), 512: (2, 3)}
"""By interval in tokens, the windows."""
ENTROPY = {32: (0.1, 0.01, 0.001), 64: (0.1,), 256: (0.01, 0.001), 512: (0.01,)}
"""By interval, the thresholds of the variance."""
DEADLINES_MS = (500, 1000, 2000)
STRATEGIES = {"self_consistency": (3,), "particles": (3,)}
"""By method, how many thoughts share a budget: each has an ordinary thought's tokens, or half."""
METHODS = ("agreement", "entropy", "deadline", *STRATEGIES)
"""What a server is asked for."""
MOST_PROBES = 64
"""Of an ordinary thought: a shorter interval than that asks for is left out."""


@dataclass(frozen=True, slots=True)
class Arm:
    """One setting of one method. `asked` is what a request says of it in `ponder`.

    A `cap` is a budget as it is served: a model that was trained on budget hints is told of it. An
    `untold` cap only cuts. `auto` and `predictor` choose among the caps and are asked for nothing.
    """

    method: str
    setting: str
    asked: Mapping[str, Any] = field(default_factory=dict, compare=False)
    budget: int = UNLIMITED

    @property
    def name(self) -> str:
        return f"{self.method} {self.setting}"


def cap(budget: int, *, told: bool = True) -> Arm:
    """A plain budget.

    >>> cap(64).name, cap(-1).name, cap(64, told=False).name
    ('cap 64', 'cap free', 'untold 64')
    """
    setting = "free" if budget == UNLIMITED else str(budget)
    return Arm("cap" if told else "untold", setting, budget=budget)


FREE = cap(UNLIMITED)


def exits(thought: float, prefix: str | None) -> list[Arm]:
    """Exits that probe a thought of so many tokens at least once, and not too often; all deadlines.

    The probes' answers begin with `prefix`, None for the contract's. Without either an entropy has
    no meaning and is left out.
    """
    said: dict[str, Any] = {} if prefix is None else {"prefix": prefix}
    arms = [
        _early("agreement", interval, f"{window} equal", said, window=window, answer="number",
               max_probe_tokens=min(16, interval))
        for interval, windows in AGREEMENT.items()
        for window in windows
        if thought / MOST_PROBES <= interval <= thought
    ]  # fmt: skip
    arms += [
        _early("entropy", interval, f"variance < {delta:g}", said, window=2, delta=delta)
        for interval, deltas in ENTROPY.items()
        for delta in deltas
        if prefix and thought / MOST_PROBES <= interval <= thought
    ]
    return arms + [Arm("deadline", f"{ms} ms", {"deadline_ms": ms}) for ms in DEADLINES_MS]


def strategies(thought: float, prefix: str | None) -> list[Arm]:
    """Strategies whose thoughts share as many ordinary thoughts' tokens as there are, or half."""
    arms = []
    for method, numbers in STRATEGIES.items():
        for n in numbers:
            for budget in (32 * round(n * thought / 64), 32 * round(n * thought / 32)):
                asked: dict[str, Any] = {"method": method, "n": n, "answer": "number"}
                if method == "particles":
                    asked |= {"interval": 32, "max_probe_tokens": 16}
                    asked |= {} if prefix is None else {"prefix": prefix}
                setting = f"{n} thoughts, {budget} tokens"
                arms.append(Arm(method, setting, {"strategy": asked}, budget))
    return arms


def _early(method: str, interval: int, said: str, more: Mapping[str, Any], **options: Any) -> Arm:
    asked = {"method": method, "interval": interval, **options, **more}
    return Arm(method, f"every {interval}, {said}", {"early_exit": asked})


def caps(budgets: Sequence[int], trained: Sequence[int]) -> list[Arm]:
    """Plain caps, with no thought and no limit beside them.

    A model that was trained on some budgets is also asked under these, and untold under `budgets`.

    >>> [arm.name for arm in caps([64], trained=[40])]
    ['cap 0', 'cap 40', 'cap 64', 'cap free', 'untold 64']
    """
    told = [*map(cap, sorted({0, *budgets, *trained})), FREE]
    return told + [cap(budget, told=False) for budget in budgets if trained]
