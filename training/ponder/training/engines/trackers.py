"""The trackers to which accelerate can report a run's figures, by name."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..run.recipe import PolicyRecipe


class Trackers:
    """The trackers of `recipe.report_to`, whose files are below `out`.

    `options` are for the `Accelerator` that runs the trackers: an engine passes its own to `begin`;
    otherwise `begin` makes one.
    """

    def __init__(self, recipe: PolicyRecipe, out: Path) -> None:
        from accelerate.utils import ProjectConfiguration

        logs = os.environ.get("TENSORBOARD_LOGGING_DIR") or str(out / "runs")
        self.options: dict[str, Any] = {
            "log_with": list(recipe.report_to) or None,
            "project_config": ProjectConfiguration(project_dir=str(out), logging_dir=logs),
        }
        self._name = recipe.name
        self._accelerator: Any = None

    def begin(self, accelerator: Any = None) -> None:
        if self.options["log_with"] is None:
            return
        if accelerator is None:
            from accelerate import Accelerator

            accelerator = Accelerator(cpu=True, **self.options)
        self._accelerator = accelerator
        accelerator.init_trackers(self._name)

    @property
    def _running(self) -> list[Any]:
        return [] if self._accelerator is None else list(self._accelerator.trackers)

    def report(self, update: int, figures: Mapping[str, float]) -> None:
        if self._accelerator is not None:
            self._accelerator.log(dict(figures), step=update)

    def show(self, update: int, samples: Sequence[Mapping[str, object]]) -> None:
        for tracker in self._running:
            show(tracker, samples, update)

    def close(self) -> None:
        for tracker in self._running:
            tracker.finish()


def missing(names: Sequence[str]) -> list[str]:
    """Those of `names` whose package is not installed. Raises `ValueError` for unknown names."""
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers

    for name in names:
        if name not in LOGGER_TYPE_TO_CLASS:
            raise ValueError(f"{name} is not a known tracker: name some of {_listed()}")
    available = {str(tracker) for tracker in get_available_trackers()}
    return [name for name in names if name not in available]


def show(tracker: Any, samples: Sequence[Mapping[str, object]], update: int) -> None:
    """Texts for TensorBoard, a table for W&B; the other trackers take numbers alone."""
    if tracker.name == "wandb":
        columns = list(dict.fromkeys(name for sample in samples for name in sample))
        rows = [[_cell(sample.get(name)) for name in columns] for sample in samples]
        tracker.log_table("samples", columns=columns, data=rows, step=update)
    elif tracker.name == "tensorboard":
        texts = {f"samples/{i}": _page(sample) for i, sample in enumerate(samples)}
        tracker.log(texts, step=update)


def _cell(value: object) -> str | float | int | None:
    return value if isinstance(value, str | float | int | None) else json.dumps(value)


def _page(sample: Mapping[str, object]) -> str:
    """A sample as Markdown; an indented block keeps a thought's own marks."""
    parts = []
    for name, value in sample.items():
        text = str(_cell(value)).replace("\n", "\n    ")
        parts.append(f"**{name}**\n\n    {text}\n")
    return "\n".join(parts)


def _listed() -> str:
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS

    return ", ".join(sorted(LOGGER_TYPE_TO_CLASS))
