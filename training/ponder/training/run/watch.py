"""A run's progress: a bar, and metrics and samples as JSON lines."""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ponder.evaluation.bars import step_bar

from .directory import write_whole

METRICS = "metrics.jsonl"
SAMPLES = "samples.jsonl"
BEST = "best"


def quieten() -> None:
    """Hide all progress bars but ours and those of downloads."""
    from huggingface_hub.utils.tqdm import enable_progress_bars
    from transformers.utils import logging

    logging.disable_progress_bar()
    enable_progress_bars()


class Progress:
    """Writes `metrics.jsonl` and `samples.jsonl`, moves a bar with the time left, draws curves.

    `validations` are all so far, including those before a resume. Lines of steps beyond `done` are
    dropped, because a resumed run repeats these steps. Only the main process writes.
    """

    def __init__(
        self, out: Path, *, name: str, steps: int, done: int, main: bool, bar: bool
    ) -> None:
        self._out = out
        self._main = main
        self._began = time.monotonic()
        self._shown = {"step": "", "validation": ""}
        self._phases: dict[str, float] = defaultdict(float)
        earlier = self._keep_until(done) if main else []
        self.validations = [entry for entry in earlier if entry["kind"] == "validation"]
        self._bar = step_bar(name, steps, done, main and bar)

    def stepped(self, step: int, figures: Mapping[str, float]) -> None:
        """Record a step's metrics; one in which no response ended has no `accuracy`."""
        self._write(METRICS, {"kind": "step", "step": step, **figures})
        if "accuracy" in figures:
            self._shown["step"] = (
                f"{figures['accuracy']:.1%} at {figures['thinking_tokens']:.0f} tokens"
            )
        for name, seconds in figures.items():
            if name.startswith("seconds_"):
                self._phases[name.removeprefix("seconds_")] += seconds
        self._bar.set_postfix_str(_told(self._shown), refresh=False)
        self._bar.update(step - self._bar.n)

    def validated(self, step: int, figures: Mapping[str, float]) -> bool:
        """Record a validation; returns whether it is the best so far (ties: fewer tokens).

        `accuracy` and `thinking_tokens` decide; further validations' figures have a prefix.
        """
        entry = {"step": step, **figures}
        self._write(METRICS, {"kind": "validation", **entry})
        self._shown["validation"] = (
            f"validated {entry['accuracy']:.1%} at {entry['thinking_tokens']:.0f}"
        )
        self._bar.set_postfix_str(_told(self._shown))
        better = all(_score(entry) > _score(earlier) for earlier in self.validations)
        self.validations.append(entry)
        return better

    def reached(self) -> Iterator[str]:
        """Sentences on the first, the last and the best validation, and on time."""
        if not self.validations:
            return
        first, last = self.validations[0], self.validations[-1]
        best = max(self.validations, key=_score)
        yield (
            f"validation: {first['accuracy']:.1%} → {last['accuracy']:.1%} right, "
            f"{first['thinking_tokens']:.0f} → {last['thinking_tokens']:.0f} tokens of thought"
        )
        yield (
            f"best: {best['accuracy']:.1%} at {best['thinking_tokens']:.0f} tokens, "
            f"step {best['step']}, in {self._out / BEST}"
        )
        if whole := sum(self._phases.values()):
            shares = (f"{name} {seconds / whole:.0%}" for name, seconds in self._phases.items())
            yield f"time in steps: {', '.join(shares)}"

    def sample(self, step: int, shown: Sequence[Mapping[str, object]]) -> None:
        for rollout in shown:
            self._write(SAMPLES, {"step": step, **rollout})

    def close(self) -> None:
        """End the run: draw its curves."""
        self._bar.close()
        if self._main:
            from ponder.evaluation.plots import plot_training

            plot_training(self._out / METRICS, self._out / "training")

    def _write(self, name: str, entry: Mapping[str, object]) -> None:
        if self._main:
            line = {**entry, "seconds": round(time.monotonic() - self._began, 1)}
            with (self._out / name).open("a", encoding="utf-8") as file:
                file.write(json.dumps(line, ensure_ascii=False) + "\n")

    def _keep_until(self, done: int) -> list[dict[str, Any]]:
        kept: list[dict[str, Any]] = []
        for name in (METRICS, SAMPLES):
            path = self._out / name
            text = path.read_text(encoding="utf-8") if path.exists() else ""
            # A killed run may have left half a line. Samples may hold what splitlines splits at.
            entries = [json.loads(line) for line in text.split("\n")[:-1]]
            entries = [entry for entry in entries if entry["step"] <= done and done]
            write_whole(path, "".join(json.dumps(e, ensure_ascii=False) + "\n" for e in entries))
            kept += entries if name == METRICS else []
        return kept


def _score(validation: Mapping[str, Any]) -> tuple[float, float]:
    """The key by which the best validation is chosen: accuracy, then fewer tokens."""
    return validation["accuracy"], -validation["thinking_tokens"]


def _told(figures: Mapping[str, str]) -> str:
    return ", ".join(filter(None, figures.values()))
