"""What the rollouts of a truncated thought tell the stages."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

from ponder.tasks.problems import Problem
from ponder.training.method.batch import Prompt, Rollout
from ponder.training.method.brpo import BrpoConfig
from ponder.training.rollout.drive import pull
from ponder.training.rollout.kinds import TruncatedPlan
from ponder.training.rollout.plans import Reader

CONFIG = BrpoConfig(budgets=(4, 8), group_size=2, summaries=2, summary_tokens=6, grace=0)


def rollout(reader: Reader, thought: Sequence[int]) -> Rollout:
    """The rollout of a model that writes this thought, and "a" wherever it answers."""
    answer = [*reader.tokenizer.encode("a"), min(reader.tokenizer.eos_token_ids)]

    def sampler(
        prompts: Sequence[Sequence[int]], noise_BT: torch.Tensor, stop_ids: frozenset[int]
    ) -> list[list[int]]:
        said = thought if reader.form.end.token_id in stop_ids else answer
        return [list(said)[: noise_BT.shape[1]] for _ in prompts]

    prompt = Prompt(Problem("t:a", "t", 1, "a", "1"), (1,), "a")
    (found,) = pull(TruncatedPlan(CONFIG, reader).rollouts([prompt], [1]), sampler)
    return found


def placed(found: Rollout) -> list[int]:
    """The segment of every token of the thought."""
    return [node.place[0] for node in found.trunk for _ in node.ids]


@pytest.mark.parametrize(
    ("written", "segments", "cut"),
    [
        (0, [0], [1, 1]),
        (3, [0] * 4, [4, 4]),
        (4, [0] * 5, [5, 5]),
        (5, [0] * 4 + [1] * 2, [4, 6]),
        (8, [0] * 4 + [1] * 5, [4, 9]),
        (9, [0] * 4 + [1] * 4, [4, 8]),
    ],
)
def test_what_ends_a_thought_belongs_to_the_segment_that_it_ends(
    reader: Reader, written: int, segments: list[int], cut: list[int]
) -> None:
    """A thought of exactly as many tokens as a budget has ended within it."""
    end = reader.form.end.token_id
    assert end is not None
    word = reader.tokenizer.encode("a")
    found = rollout(reader, [*word * written, end])
    assert placed(found) == segments
    columns = TruncatedPlan(CONFIG, reader).columns([found])
    assert columns["cut"].tolist() == [cut]
    assert columns["thinking"].tolist() == [min(written, 8)]


@pytest.mark.parametrize(
    ("written", "segments", "cut"),
    [(3, [0] * 4, [-1, -1]), (4, [0] * 4 + [1], [4, -1]), (5, [0] * 4 + [1] * 2, [4, -1])],
)
def test_a_text_that_ends_inside_its_thought_has_no_cut_from_there_on(
    reader: Reader, written: int, segments: list[int], cut: list[int]
) -> None:
    word, eos = reader.tokenizer.encode("a"), min(reader.tokenizer.eos_token_ids)
    found = rollout(reader, [*word * written, eos])
    assert placed(found) == segments
    assert TruncatedPlan(CONFIG, reader).columns([found])["cut"].tolist() == [cut]
