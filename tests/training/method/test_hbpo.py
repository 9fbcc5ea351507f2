import math
from random import Random

import pytest
import torch

from ponder.training.method import hbpo
from ponder.training.method.batch import Batch
from ponder.training.method.hbpo import HbpoConfig
from ponder.training.rollout.kinds import HintedPlan
from ponder.training.rollout.plans import Reader
from training.method.scored import after, scored

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
) -> Batch:
    """Groups of 16, or one of fewer."""
    return scored(
        [16] * (len(correct) // 16) or [len(correct)],
        correct=torch.tensor(correct).bool(),
        formatted=torch.tensor(formatted or [1] * len(correct)).bool(),
        length=lengths,
        budget=budgets,
    )


def question() -> Batch:
    budgets = tuple(b for b in BUDGETS for _ in range(4))
    return outcomes(CORRECT, LENGTHS, budgets)


def rewards(seen: Batch, config: HbpoConfig) -> torch.Tensor:
    return after(config, seen, "reward")["reward"]


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
    rewards_B = rewards(question(), CONFIG)
    assert rewards_B.tolist() == pytest.approx(expected, abs=5e-5)
    assert rewards_B.mean().item() == pytest.approx(2.2339, abs=5e-5)
    assert rewards_B.std().item() == pytest.approx(1.4832, abs=5e-5)


def test_advantages_of_the_worked_question() -> None:
    found = after(CONFIG, question())
    intra = [a for a in (-1.9896, -0.9625, -0.0517, -0.7300) for _ in range(4)]
    assert found["advantage_intra"].tolist() == pytest.approx(intra, abs=5e-5)
    expected = [-0.8507, -0.9264, -3.4958, -3.4958, 0.0229, -0.0813, 0.0229, -2.4687]
    expected += [0.3492, 0.2098, 0.3492, 0.3492, -0.7378, -1.2081, -0.7378, -2.2361]
    assert found["advantage"].tolist() == pytest.approx(expected, abs=1e-4)
    parts_B = found["advantage_inter"] + found["advantage_intra"]
    assert torch.equal(found["advantage"], parts_B)


@pytest.mark.parametrize(
    ("low", "high", "best"),
    [(1, 865, 512), (866, 1853, 1024), (1854, 2476, 2048), (2477, 4096, 2560)],
)
def test_the_best_budget_for_a_length(low: int, high: int, best: int) -> None:
    for length in range(low, high + 1):
        seen = outcomes([1] * 4, [length] * 4, BUDGETS)
        assert BUDGETS[int(rewards(seen, CONFIG).argmax())] == best, length


def test_the_budgets_keep_their_places_on_a_tiny_task() -> None:
    """Scaled with L, every length has the best budget that it has at the paper's size."""
    tiny = HbpoConfig(longest=320)
    assert tiny.budgets == (40, 80, 160, 200)
    assert tiny.alpha == 1 / 320
    for length in range(1, 320):
        small = outcomes([1] * 4, [length] * 4, tiny.budgets)
        large = outcomes([1] * 4, [length * 4096 // 320] * 4, BUDGETS)
        small_B, large_B = rewards(small, tiny), rewards(large, CONFIG)
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

    expected_rewards = [
        one_reward(n, b, c, f, config)
        for n, b, c, f in zip(lengths, budgets, correct, formatted, strict=True)
    ]
    found = after(config, seen)
    assert found["reward"].tolist() == pytest.approx(expected_rewards, abs=1e-5)

    expected = []
    for q in range(questions):
        group = expected_rewards[16 * q : 16 * q + 16]
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
    assert found["advantage"].tolist() == pytest.approx(expected, abs=1e-4)


def test_a_question_nobody_solved_is_pushed_down_evenly() -> None:
    seen = outcomes([0] * 16, LENGTHS, CONFIG.row_budgets)
    found = after(CONFIG, seen)
    assert found["advantage_inter"].tolist() == [0.0] * 16
    most_B = hbpo.cosine(seen["budget"], CONFIG)
    assert torch.equal(found["advantage"], -most_B)
    skipping = HbpoConfig(skip_all_wrong=True)
    assert after(skipping, seen)["advantage"].abs().max() == 0


def test_intra_never_praises() -> None:
    rng = Random(1)
    for _ in range(50):
        correct = [rng.randrange(2) for _ in range(16)]
        lengths = [rng.randrange(1, 4096) for _ in range(16)]
        found = after(CONFIG, outcomes(correct, lengths, CONFIG.row_budgets))
        assert found["advantage_intra"].max() <= 1e-6


def test_the_order_of_subgroups_does_not_matter() -> None:
    seen = question()
    plain_B = after(CONFIG, seen)["advantage"]
    order = torch.randperm(16, generator=torch.Generator().manual_seed(0))
    mixed = scored([16], **{name: column[order] for name, column in seen.columns.items()})
    assert torch.allclose(after(CONFIG, mixed)["advantage"], plain_B[order])


def test_a_centred_intra_term_tells_subgroups_apart_and_nothing_else() -> None:
    def credited(seen: Batch, *, centre: bool) -> Batch:
        config = HbpoConfig(centre_intra=centre)
        return after(config, seen.with_columns(reward=rewards(seen, config)), "credit")

    plain, centred = (
        credited(question(), centre=centre)["advantage_intra"] for centre in (False, True)
    )
    assert centred.sum().item() == pytest.approx(0, abs=1e-5) and (plain <= 0).all()
    assert (plain - centred).tolist() == pytest.approx([plain.mean().item()] * 16, abs=1e-6)
    unsolved = outcomes([0] * 16, LENGTHS, CONFIG.row_budgets)
    for_all = credited(unsolved, centre=True)["advantage"]
    assert for_all.sum().item() == pytest.approx(0, abs=1e-5)


def test_rollouts_without_a_hint_keep_their_budget(reader: Reader) -> None:
    config = HbpoConfig(longest=192, budgets=(24, 96), unhinted=(1, 8), group_size=16)
    hints = HintedPlan(config, reader).hints(16)
    assert [budget for budget, _ in hints] == list(config.row_budgets)
    assert [bool(ids) for _, ids in hints] == [True] * 7 + [False] * 9


@pytest.mark.parametrize("unhinted", [(1,), (0, 0, 0, 5)])
def test_more_rollouts_without_a_hint_than_there_are_is_an_error(unhinted: tuple[int]) -> None:
    with pytest.raises(ValueError, match="unhinted must have one number for each of the 4 budgets"):
        HbpoConfig(unhinted=unhinted)
