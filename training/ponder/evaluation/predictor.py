"""Predicts a budget from the prompt alone, and tests whether it beats the task's budget.

In the manner of V_0 (arXiv 2602.03584), the chance of a right answer is predicted from the outcomes
of other prompts, without a sample of this one. A budget by prompt pays only where it spends fewer
tokens than the task's `auto` at an accuracy that is not worse.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ponder.engine.tokenizer import HFTokenizer
from ponder.thought.curve import free_last

from .curves import EPSILON, Row
from .intervals import Estimate, paired, ratio

Floats = NDArray[np.float64]
Embed = Callable[[str], Floats]

MARGINS = (0.3, 0.2, 0.1, 0.05, 0.02, 0.01, 0.0)
"""Margins below a prompt's best chance within which its budget may be; tried in this order."""
_FOLDS = 5
_COMPONENTS = 16
_RIDGE = 1.0
_STEPS = 25
_CERTAIN = 0.01  # shares of 0 and 1 are moved inside by this much, so that the fit stays finite


@dataclass(frozen=True, slots=True)
class Example:
    """A prompt, and its outcome under every budget."""

    prompt: str
    row: Row


class Predictor(Protocol):
    """Predicts the outcomes of prompts from a history of other, measured prompts.

    `predict` returns, for each prompt, the chance of a right answer by budget. It never sees these
    prompts' own outcomes.
    """

    def predict(
        self, prompts: Sequence[str], history: Sequence[Example]
    ) -> list[Mapping[int, float]]: ...


class LogisticPredictor:
    """A logistic regression per budget on a prompt's embedding and the logarithm of its length.

    The embeddings are standardised and reduced to the history's 16 principal components.
    """

    def __init__(self, embed: Embed) -> None:
        self._embed = embed

    def predict(
        self, prompts: Sequence[str], history: Sequence[Example]
    ) -> list[Mapping[int, float]]:
        known_PD = self._features([example.prompt for example in history])
        asked_QD = self._features(prompts)
        middle, spread = known_PD.mean(axis=0), known_PD.std(axis=0)
        spread[spread == 0] = 1.0
        known_PD, asked_QD = (known_PD - middle) / spread, (asked_QD - middle) / spread
        components_CD = np.linalg.svd(known_PD, full_matrices=False)[2][:_COMPONENTS]
        known_PC, asked_QC = known_PD @ components_CD.T, asked_QD @ components_CD.T
        chances: dict[int, Floats] = {}
        for budget in history[0].row.shares:
            shares_P = np.array([example.row.shares[budget] for example in history])
            chances[budget] = _fitted(known_PC, shares_P)(asked_QC)
        return [
            {budget: float(chances_Q[at]) for budget, chances_Q in chances.items()}
            for at in range(len(prompts))
        ]

    def _features(self, prompts: Sequence[str]) -> Floats:
        return np.array([[*self._embed(prompt), np.log1p(len(prompt))] for prompt in prompts])


def _fitted(known_PC: Floats, shares_P: Floats) -> Callable[[Floats], Floats]:
    """Ridge logistic regression by Newton's method; the intercept is free."""
    x_PE = np.column_stack([np.ones(len(known_PC)), known_PC])
    y_P = _CERTAIN + (1 - 2 * _CERTAIN) * shares_P
    ridge_E = np.full(x_PE.shape[1], _RIDGE)
    ridge_E[0] = 1e-6
    weights_E = np.zeros(x_PE.shape[1])
    for _ in range(_STEPS):
        chance_P = _logistic(x_PE @ weights_E)
        slope_E = x_PE.T @ (y_P - chance_P) - ridge_E * weights_E
        bend_EE = (x_PE.T * (chance_P * (1 - chance_P))) @ x_PE + np.diag(ridge_E)
        weights_E = weights_E + np.linalg.solve(bend_EE, slope_E)
    return lambda asked_QC: _logistic(weights_E[0] + asked_QC @ weights_E[1:])


def _logistic(values: Floats) -> Floats:
    result: Floats = 1 / (1 + np.exp(-np.clip(values, -30, 30)))
    return result


@dataclass(frozen=True, slots=True)
class ByPrompt:
    """A budget for each prompt compared with the task's `auto`, on the reporting half.

    `difference` is the former's accuracy less `auto`'s, `tokens` the ratio of its tokens to
    `auto`'s. `margin` was chosen on the choosing half.
    """

    margin: float
    difference: Estimate
    tokens: Estimate

    @property
    def pays(self) -> bool:
        """Whether it spends less for an accuracy at most a point worse, both at 95 %."""
        return self.difference.low >= -EPSILON and self.tokens.high < 1


def by_prompt(
    choosing: Sequence[Example], reporting: Sequence[Example], auto: int, predictor: Predictor
) -> ByPrompt | None:
    """Compare a predictor with the task's budget; None where no margin is safe."""
    found = budgets(choosing, [example.prompt for example in reporting], auto, predictor)
    if found is None:
        return None
    margin, chosen = found
    spent = [example.row.tokens[b] for example, b in zip(reporting, chosen, strict=True)]
    usual = [example.row.tokens[auto] for example in reporting]
    return ByPrompt(margin, _difference(reporting, chosen, auto), ratio(spent, usual))


def budgets(
    choosing: Sequence[Example], prompts: Sequence[str], auto: int, predictor: Predictor
) -> tuple[float, list[int]] | None:
    """A margin that is safe on the choosing half, and each prompt's budget; None without any.

    The margin is the first of `MARGINS` at which the cross-validated budgets' accuracy on the
    choosing half is within a point of `auto`'s at 95 %.
    """
    within = _crossed(choosing, predictor)
    for margin in MARGINS:
        chosen = [_budget(chances, margin) for chances in within]
        if _difference(choosing, chosen, auto).low >= -EPSILON:
            chances = predictor.predict(prompts, choosing)
            return margin, [_budget(each, margin) for each in chances]
    return None


def _crossed(examples: Sequence[Example], predictor: Predictor) -> list[Mapping[int, float]]:
    """Cross-validation: predict every example from the folds that do not contain it."""
    found: dict[int, Mapping[int, float]] = {}
    folds = min(_FOLDS, len(examples))
    for fold in range(folds):
        places = range(fold, len(examples), folds)
        history = [each for place, each in enumerate(examples) if place % folds != fold]
        asked = [examples[place].prompt for place in places]
        found.update(zip(places, predictor.predict(asked, history), strict=True))
    return [found[place] for place in range(len(examples))]


def _budget(chances: Mapping[int, float], margin: float) -> int:
    """The least budget whose chance is within `margin` of the best."""
    wanted = max(chances.values()) - margin
    return next(b for b in sorted(chances, key=free_last) if chances[b] >= wanted)


def _difference(examples: Sequence[Example], chosen: Sequence[int], auto: int) -> Estimate:
    pairs = zip(examples, chosen, strict=True)
    return paired([[each.row.shares[b] - each.row.shares[auto] for each, b in pairs]])


def embedding(model: Path) -> Embed | None:
    """The mean of the model's own embeddings of a prompt's tokens; None where there are none."""
    from safetensors import safe_open

    for file in sorted(model.glob("*.safetensors")):
        with safe_open(file, framework="pt") as tensors:
            name = next((n for n in tensors.keys() if n.endswith("embed_tokens.weight")), None)  # noqa: SIM118
            if name is not None:
                table_VD: Floats = tensors.get_tensor(name).double().numpy()
                tokenizer = HFTokenizer(model)
                return lambda prompt: table_VD[tokenizer.encode(prompt)].mean(axis=0)
    return None
