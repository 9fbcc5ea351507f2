"""The time that an engine takes for its work, fitted to measurements of real engines."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[2]
BENCHMARK = ROOT / "docs" / "benchmark.json"
FITTED = ("plain-whole-c1", "plain-whole-c8", "plain-whole-c32", "plain-whole-c128")
"""Points of `make bench` to which the profile of this machine's engine is fitted."""


@dataclass(frozen=True, slots=True)
class Profile:
    """An engine with continuous batching: its costs in seconds, and its limits.

    A step gives each running row a token and takes `base_s`, plus `row_s` for each row and
    `context_s` for each token in their caches. Prefill takes `prompt_s` for each prompt token that
    the prefix cache lacks, and every row waits for it. At most `rows` rows run at once, and their
    contexts together have at most `cache` tokens.

        >>> engine = Profile("toy", base_s=0.01, row_s=0.001, rows=8, cache=1000)
        >>> engine.step(rows=2, context=0)
        0.012
    """

    name: str
    base_s: float
    row_s: float = 0.0
    context_s: float = 0.0
    prompt_s: float = 0.0
    rows: int = 256
    cache: int = 1 << 60
    source: str = ""

    def step(self, rows: int, context: float) -> float:
        """Seconds of one step."""
        return self.base_s + self.row_s * rows + self.context_s * context


@dataclass(frozen=True, slots=True)
class Published:
    """A row of a published table: `rows` requests of one shape at once, on one GPU."""

    rows: int
    prompt: int
    output: int
    tokens_per_second: float


H100_7B = (
    Published(64, 128, 128, 9193),
    Published(64, 128, 2048, 5367),
    Published(64, 2048, 128, 2058),
    Published(32, 2048, 2048, 2230),
)
"""LLaMA 7B on one H100 in FP8: TensorRT-LLM 0.5.0, performance.md, "High Throughput"."""
_H100_CACHE = 240_000
"""Tokens: 63 GB beside the weights, 262 kB a token (32 layers, keys and values of 4,096, FP8)."""


def h100() -> Profile:
    """Fit the three costs to three of the four published rows; the fourth row tests them.

    A row's time to its last token is its prefill and `output` steps at the mean context.
    """
    made = [(1.0 * one.output, *_work(one)) for one in H100_7B[:3]]
    took = [one.rows * one.output / one.tokens_per_second for one in H100_7B[:3]]
    base, context, prompt = np.linalg.solve(np.array(made), np.array(took)).tolist()
    return Profile(
        "h100-7b",
        base_s=base,
        context_s=context,
        prompt_s=prompt,
        rows=256,
        cache=_H100_CACHE,
        source="TensorRT-LLM 0.5.0's published figures of LLaMA 7B on an H100 in FP8",
    )


def predicted(profile: Profile, row: Published) -> float:
    """Tokens per second that a profile predicts for a published row."""
    context, prompt = _work(row)
    took = row.output * (profile.base_s + profile.row_s * row.rows)
    return row.rows * row.output / (took + context * profile.context_s + prompt * profile.prompt_s)


def _work(row: Published) -> tuple[float, float]:
    """Tokens of context that the row's steps read, and tokens of its prompts."""
    return row.output * row.rows * (row.prompt + row.output / 2), float(row.rows * row.prompt)


def measured(points: Sequence[str] = FITTED, path: Path = BENCHMARK) -> Profile:
    """Fit the bundled checkpoint on vLLM's CPU build: a line through step times of `make bench`."""
    figures = json.loads(path.read_text(encoding="utf-8"))["figures"]
    rate = {one["figure"]: one["ponder"] for one in figures if one["unit"] == "tokens/s"}
    rows = [int(point.rpartition("c")[2]) for point in points]
    row_s, base_s = np.polyfit(rows, [n / rate[p] for n, p in zip(rows, points, strict=True)], 1)
    return Profile(
        "tiny-cpu",
        base_s=float(base_s),
        row_s=float(row_s),
        source="docs/benchmark.json, this repository's own measurement",
    )
