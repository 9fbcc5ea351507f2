"""How likely a prompt is to be answered rightly, predicted from the outcomes of others."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ponder.evaluation.curves import Row
from ponder.evaluation.predictor import Example, LogisticPredictor, embedding

_BUDGET = 0  # there is one: training thinks as long as it wants


class Chances:
    """The predictor of a calibration, on the embeddings of the checkpoint in `directory`.

    Raises `ValueError` where it has none.
    """

    def __init__(self, directory: Path) -> None:
        embed = embedding(directory)
        if embed is None:
            raise ValueError(
                f"method.add: v0 predicts from embeddings, and {directory} has no "
                "embed_tokens.weight in its *.safetensors: use another base, or remove v0"
            )
        self._predictor = LogisticPredictor(embed)

    def __call__(self, prompts: Sequence[str], history: Sequence[tuple[str, float]]) -> list[float]:
        """The chance of each prompt, from those that others had."""
        known = [
            Example(prompt, Row(prompt, {_BUDGET: share}, {_BUDGET: 0.0}, 1))
            for prompt, share in history
        ]
        return [chance[_BUDGET] for chance in self._predictor.predict(prompts, known)]
