import math
from random import Random

import pytest
import torch

from ponder.training.algorithms import grpo, hbpo
from ponder.training.algorithms.outcomes import Outcomes
from ponder.training.methods import HbpoConfig, LengthPenaltyConfig

CONFIG = HbpoConfig()
BUDGETS = (512, 1024, 2048, 2560)
CORRECT = [1, 1, 0, 0, 1, 1, 1, 0, 1, 1, 1, 1, 1, 1, 1, 0]
LENGTHS = [400, 700, 600, 4096, 900, 1200, 800, 1000]
LENGTHS += [1500, 2200, 1800, 1000, 2000, 3000, 2500, 4000]


def outcomes(
    correct: list[int],
    lengths: list[int],
    budgets: tuple[int, ...],
    formatted: list[int] | None = None,
) -> Outcomes:
    return Outcomes(
        torch.tensor(correct).bool(),
        torch.tensor(formatted or [1] * len(correct)).bool(),
        torch.tensor(lengths),
        torch.tensor(budgets),
    )


def question() -> Outcomes:
    budgets = tuple(b for b in BUDGETS for _ in range(4))
    return outcomes(CORRECT, LENGTHS, budgets)


def test_defaults_are_the_papers() -> None:
    assert CONFIG.budgets == BUDGETS
    assert CONFIG.alpha == 1 / 4096
    assert CONFIG.row_budgets == tuple(b for b in BUDGETS for _ in range(4))


def test_the_most_that_each_budget_earns() -> None:
    found = hbpo.cosine(torch.tensor(BUDGETS), CONFIG).tolist()
    assert found == pytest.approx([3.9231, 3.6955, 2.8284, 2.2223], abs=5e-5)


def test_rewards_of_the_worked_question() -> None:
    expected = [3.9231, 3.8108, 0, 0, 3.6955, 3.5409, 3.6955, 0]
    expected += [2.8284, 2.6217, 2.8284, 2.8284, 2.2223, 1.5248, 2.2223, 0]
    rewards_B = hbpo.reward(question(), CONFIG)
    assert rewards_B.tolist() == pytest.approx(expected, abs=5e-5)
    assert rewards_B.mean().item() == pytest.approx(2.2339, abs=5e-5)
    assert rewards_B.std().item() == pytest.approx(1.4832, abs=5e-5)


def test_advantages_of_the_worked_question() -> None:
    seen = question()
    found = hbpo.advantage(hbpo.reward(seen, CONFIG), seen, CONFIG)
    intra = [a for a in (-1.9896, -0.9625, -0.0517, -0.7300) for _ in range(4)]
    assert found.parts["intra"].tolist() == pytest.approx(intra, abs=5e-5)
    expected = [-0.8507, -0.9264, -3.4958, -3.4958, 0.0229, -0.0813, 0.0229, -2.4687]
    expected += [0.3492, 0.2098, 0.3492, 0.3492, -0.7378, -1.2081, -0.7378, -2.2361]
    assert found.segments_BS[:, 0].tolist() == pytest.approx(expected, abs=1e-4)
    parts_B = found.parts["inter"] + found.parts["intra"]
    assert torch.equal(found.segments_BS[:, 0], parts_B)


@pytest.mark.parametrize(
    ("low", "high", "best"),
    [(1, 865, 512), (866, 1853, 1024), (1854, 2476, 2048), (2477, 4096, 2560)],
)
def test_the_best_budget_for_a_length(low: int, high: int, best: int) -> None:
    for length in range(low, high + 1):
        seen = outcomes([1] * 4, [length] * 4, BUDGETS)
        assert BUDGETS[int(hbpo.reward(seen, CONFIG).argmax())] == best, length


def test_the_budgets_keep_their_places_on_a_tiny_task() -> None:
    """Scaled with L, every length has the best budget that it has at the paper's size."""
    tiny = HbpoConfig(longest=320)
    assert tiny.budgets == (40, 80, 160, 200)
    assert tiny.alpha == 1 / 320
    for length in range(1, 320):
        small = outcomes([1] * 4, [length] * 4, tiny.budgets)
        large = outcomes([1] * 4, [length * 4096 // 320] * 4, BUDGETS)
        small_B, large_B = hbpo.reward(small, tiny), hbpo.reward(large, CONFIG)
        assert small_B.tolist() == pytest.approx(large_B.tolist(), abs=2e-3)


def one_reward(n: int, b: int, correct: int, formatted: int, config: HbpoConfig) -> float:
    if not formatted:
        return config.format_penalty
    if not correct or n > config.longest:
        return 0.0
    if n <= b:
        return config.beta * math.cos(math.pi * b / (2 * config.longest))
    bent = config.beta * math.cos(math.pi * n / (2 * config.longest))
    return bent - config.alpha * abs(n - b)


@pytest.mark.parametrize("seed", range(20))
def test_against_loops(seed: int) -> None:
    """Uneven subgroups, several questions, every flag."""
    rng = Random(seed)
    config = HbpoConfig(
        group_size=16,
        budgets=(512, 1024, 1536, 2048, 2560, 3072),
        subgroup_sizes=(2, 2, 4, 4, 2, 2),
        format_penalty=rng.choice([0.0, -1.0]),
        skip_all_wrong=rng.random() < 0.5,
    )
    questions = 4
    budgets = config.row_budgets * questions
    shares = [rng.choice([0.0, 0.5, 1.0]) for _ in range(questions) for _ in range(16)]
    correct = [int(rng.random() < share) for share in shares]
    correct[:16] = [0] * 16
    formatted = [int(rng.random() < 0.8) for _ in budgets]
    lengths = [rng.randrange(1, 4600) for _ in budgets]
    seen = outcomes(correct, lengths, budgets, formatted)

    rewards = [
        one_reward(n, b, c, f, config)
        for n, b, c, f in zip(lengths, budgets, correct, formatted, strict=True)
    ]
    rewards_B = hbpo.reward(seen, config)
    assert rewards_B.tolist() == pytest.approx(rewards, abs=1e-5)

    expected = []
    for q in range(questions):
        group = rewards[16 * q : 16 * q + 16]
        mean = sum(group) / 16
        std = math.sqrt(sum((r - mean) ** 2 for r in group) / 15)
        skipped = config.skip_all_wrong and not any(correct[16 * q : 16 * q + 16])
        start = 0
        for budget, size in zip(config.budgets, config.subgroup_sizes, strict=True):
            subgroup = group[start : start + size]
            best = one_reward(1, budget, 1, 1, config)
            intra = sum(subgroup) / size - best
            for r in subgroup:
                expected.append(0.0 if skipped else (r - mean) / (std + 1e-6) + intra)
            start += size
    found = hbpo.advantage(rewards_B, seen, config).segments_BS[:, 0]
    assert found.tolist() == pytest.approx(expected, abs=1e-4)


def test_a_question_nobody_solved_is_pushed_down_evenly() -> None:
    seen = outcomes([0] * 16, LENGTHS, CONFIG.row_budgets)
    found = hbpo.advantage(hbpo.reward(seen, CONFIG), seen, CONFIG)
    assert found.parts["inter"].tolist() == [0.0] * 16
    most_B = hbpo.cosine(seen.budget_B, CONFIG)
    assert torch.equal(found.segments_BS[:, 0], -most_B)
    skipping = HbpoConfig(skip_all_wrong=True)
    found = hbpo.advantage(hbpo.reward(seen, skipping), seen, skipping)
    assert found.segments_BS.abs().max() == 0


def test_intra_never_praises() -> None:
    rng = Random(1)
    for _ in range(50):
        correct = [rng.randrange(2) for _ in range(16)]
        lengths = [rng.randrange(1, 4096) for _ in range(16)]
        seen = outcomes(correct, lengths, CONFIG.row_budgets)
        found = hbpo.advantage(hbpo.reward(seen, CONFIG), seen, CONFIG)
        assert found.parts["intra"].max() <= 1e-6


def test_the_order_of_subgroups_does_not_matter() -> None:
    seen = question()
    plain_B = hbpo.advantage(hbpo.reward(seen, CONFIG), seen, CONFIG).segments_BS[:, 0]
    order = torch.randperm(16, generator=torch.Generator().manual_seed(0))
    mixed = Outcomes(
        seen.correct_B[order], seen.formatted_B[order], seen.length_B[order], seen.budget_B[order]
    )
    found = hbpo.advantage(hbpo.reward(mixed, CONFIG), mixed, CONFIG)
    assert torch.allclose(found.segments_BS[:, 0], plain_B[order])


def test_the_cosine_ablation() -> None:
    config = LengthPenaltyConfig(group_size=4)
    seen = outcomes([1, 1, 0, 1], [0, 2048, 100, 5000], (0,) * 4)
    rewards_B = hbpo.length_penalty(seen, config)
    assert rewards_B.tolist() == pytest.approx([4, 4 * math.cos(math.pi / 4), 0, 0])
    found = grpo.advantage(rewards_B, seen, config).segments_BS[:, 0]
    expected_B = (rewards_B - rewards_B.mean()) / (rewards_B.std() + 1e-6)
    assert torch.allclose(found, expected_B)
    unclosed = outcomes([1] * 4, [10] * 4, (0,) * 4, formatted=[0, 1, 1, 1])
    assert hbpo.length_penalty(unclosed, config)[0] == 0
