"""Predicts a prompt's chance of a right answer from the outcomes of other prompts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ponder.evaluation.curves import Row
from ponder.evaluation.predictor import Example, LogisticPredictor, embedding

_BUDGET = 0  # a placeholder: in training thoughts have no budget


class Chances:
    """The predictor of a calibration, on the embeddings of the checkpoint in `directory`.

    Raises `ValueError` where the checkpoint has no embeddings.
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
        """The chance of each prompt, from the earlier prompts and their shares of right answers."""
        known = [
            Example(prompt, Row(prompt, {_BUDGET: share}, {_BUDGET: 0.0}, 1))
            for prompt, share in history
        ]
        return [chance[_BUDGET] for chance in self._predictor.predict(prompts, known)]
