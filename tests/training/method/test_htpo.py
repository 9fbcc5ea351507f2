import math
from dataclasses import dataclass, replace
from random import Random

import pytest
import torch

from ponder.training.method.htpo import HtpoConfig, TokenObjectives, objective, token_groups
from ponder.training.method.kernel import LossInputs, clipped_objective

CONFIG = HtpoConfig()
HARD, EASY = 0.5, 0.75


@dataclass
class Row:
    """One response, token by token."""

    ratios: list[float]
    entropies: list[float]
    advantage: float
    accuracy: float
    correct: bool


def rows(several: list[Row], padding: int = 0) -> LossInputs:
    """The responses as rows ready for a gradient; what lies beyond their ends is garbage."""
    longest = max(len(row.ratios) for row in several) + padding

    def padded(values: list[float], filler: float) -> list[float]:
        return values + [filler] * (longest - len(values))

    double = torch.float64
    ratios_BT = torch.tensor([padded(row.ratios, 1.0) for row in several], dtype=double)
    old_BT = torch.full_like(ratios_BT, -2.0)
    mask = [[i < len(row.ratios) for i in range(longest)] for row in several]
    log_probs_BT = torch.where(torch.tensor(mask), old_BT + ratios_BT.log(), -torch.inf)
    return LossInputs(
        log_probs_BT=log_probs_BT.requires_grad_(),
        old_log_probs_BT=old_BT,
        advantages_BT=torch.tensor([padded([row.advantage], row.advantage) for row in several]).to(
            double
        ),
        mask_BT=torch.tensor(mask),
        columns={
            "entropy": torch.tensor([padded(row.entropies, 99.0) for row in several], dtype=double),
            "group_accuracy": torch.tensor([row.accuracy for row in several]),
            "correct": torch.tensor([row.correct for row in several]),
        },
    )


def gradients(several: LossInputs, config: HtpoConfig) -> list[list[float]]:
    torch.autograd.backward(objective(several, config).per_token_BT.sum())
    assert several.log_probs_BT.grad is not None
    return several.log_probs_BT.grad.tolist()


def one_token(group: int, ratio: float, advantage: float) -> LossInputs:
    """A response whose first token is of this group; the others sit still.

    Of five tokens one is high, the first or the last. Group 6 silences its highest, so there the
    first is the second of two in ten.
    """
    high = group % 2 == 0
    if group == 6:
        entropies = [0.8, 0.9] + [0.1] * 8
    else:
        entropies = [0.9 if high else 0.1, *[0.2] * 3, 0.1 if high else 0.9]
    accuracy = HARD if group <= 4 else EASY
    correct = group in (1, 2, 5, 6)
    ratios = [ratio] + [1.0] * (len(entropies) - 1)
    found = rows([Row(ratios, entropies, advantage, accuracy, correct)])
    assert token_groups(found, CONFIG)[0, 0] == group
    return found


PPO = [
    # ratio, A, gradient by log π over A
    (1.0, 1.0, 1.0),
    (1.2, 1.0, 1.2),
    (1.5, 1.0, 0.0),
    (0.5, 1.0, 0.5),
    (1.0, -1.0, 1.0),
    (0.9, -1.0, 0.9),
    (0.5, -1.0, 0.0),
    (1.5, -1.0, 1.5),
    (11.0, -1.0, 0.0),
]
GROUP_2 = [
    (1.0, 1.0, 1.0),
    (1.2, 1.0, 1.2),
    (0.85, 1.0, 0.85),
    (1.5, 1.0, 1.28),
    (30.0, 1.0, 1.28),
    (0.5, 1.0, 2.0),
    (0.25, 1.0, 4.0),
    (0.05, 1.0, 10.0),
    *[case for case in PPO if case[1] < 0],
]
GROUP_4 = [
    (1.0, -1.0, 1.0),
    (0.9, -1.0, 0.9),
    (0.5, -1.0, 0.8),
    (0.01, -1.0, 0.8),
    (1.5, -1.0, 1.5),
    (9.9, -1.0, 9.9),
    (11.0, -1.0, 0.0),
    *[case for case in PPO if case[1] > 0],
]
CASES = [(group, *case) for group in (1, 3, 5, 6, 7) for case in PPO]
CASES += [(2, *case) for case in GROUP_2]
CASES += [(group, *case) for group in (4, 8) for case in GROUP_4]


def q_branch(group: int, ratio: float, advantage: float) -> bool:
    if group == 2:
        return advantage > 0 and not 0.8 <= ratio <= 1.28
    return group in (4, 8) and advantage < 0 and ratio < 0.8


@pytest.mark.parametrize("scale", [1.0, 2.5])
@pytest.mark.parametrize(("group", "ratio", "advantage", "slope"), CASES)
def test_gradient_of_every_branch(
    group: int, ratio: float, advantage: float, slope: float, scale: float
) -> None:
    advantage *= scale
    found = gradients(one_token(group, ratio, advantage), CONFIG)[0][0]
    assert found == pytest.approx(slope * advantage)


@pytest.mark.parametrize(("group", "ratio", "advantage", "slope"), CASES)
def test_the_released_sign_turns_the_q_branches_alone(
    group: int, ratio: float, advantage: float, slope: float
) -> None:
    config = HtpoConfig(sign="released")
    found = gradients(one_token(group, ratio, advantage), config)[0][0]
    sign = -1 if q_branch(group, ratio, advantage) else 1
    assert found == pytest.approx(sign * slope * advantage)


def test_the_value_of_a_q_branch_is_its_weight() -> None:
    values = [
        objective(one_token(group, ratio, advantage), CONFIG).per_token_BT[0, 0].item()
        for group, ratio, advantage in ((2, 1.5, 2.0), (2, 0.5, 2.0), (4, 0.5, -2.0), (8, 0.5, -2))
    ]
    assert values == pytest.approx([2.56, 4.0, -1.6, -1.6])


def test_the_cap_on_one_over_r_can_be_moved() -> None:
    config = HtpoConfig(ratio_cap=3)
    assert gradients(one_token(2, 0.05, 1.0), config)[0][0] == pytest.approx(3.0)


@pytest.mark.parametrize(("accuracy", "hard"), [(0.59, True), (0.6, False), (3 / 5, False)])
def test_hard_is_below_six_tenths(accuracy: float, hard: bool) -> None:
    found = token_groups(rows([Row([1.0] * 5, [1.0, 0, 0, 0, 0], 1.0, accuracy, True)]), CONFIG)
    assert found.tolist() == [[2, 1, 1, 1, 1] if hard else [6, 5, 5, 5, 5]]


@pytest.mark.parametrize(("tokens", "high"), [(1, 1), (4, 1), (5, 1), (9, 1), (10, 2), (15, 3)])
def test_a_fifth_of_every_sequence_is_high(tokens: int, high: int) -> None:
    several = rows([Row([1.0] * tokens, [float(i) for i in range(tokens)], 1.0, HARD, True)], 7)
    groups_T = token_groups(several, CONFIG)[0]
    assert (groups_T == 2).nonzero().flatten().tolist() == list(range(tokens - high, tokens))
    assert (groups_T[tokens:] == 0).all()


def test_shares_are_rounded_as_the_paper_rounds_them() -> None:
    """int(.29 · 100) is 28: in single precision it would be 29."""
    config = HtpoConfig(high_entropy_share=0.29)
    several = rows([Row([1.0] * 100, [float(i) for i in range(100)], 1.0, HARD, True)])
    assert (token_groups(several, config) == 2).sum() == 28


def silenced_in_group_1(n_low: int) -> int:
    """Tokens of group 1 without gradient, in a response with `n_low` low-entropy tokens."""
    tokens = n_low + n_low // 4
    assert tokens - max(int(0.2 * tokens), 1) == n_low
    several = rows([Row([1.0] * tokens, [float(i) for i in range(tokens)], 1.0, HARD, True)])
    slopes = gradients(several, CONFIG)[0]
    assert slopes.count(0.0) == int(objective(several, CONFIG).stats["masked_low"])
    return slopes.count(0.0)


@pytest.mark.parametrize(
    ("n_low", "silent"), [(4, 0), (332, 0), (333, 0), (334, 1), (500, 2), (501, 2)]
)
def test_the_low_mask_wakes_at_334_tokens(n_low: int, silent: int) -> None:
    assert silenced_in_group_1(n_low) == silent


@pytest.mark.parametrize(("tokens", "silent"), [(1, 1), (5, 1), (100, 1), (500, 2), (750, 3)])
def test_the_high_mask_takes_one_token_at_least(tokens: int, silent: int) -> None:
    several = rows([Row([1.0] * tokens, [float(i) for i in range(tokens)], 1.0, EASY, True)])
    slopes = gradients(several, CONFIG)[0]
    assert [i for i, slope in enumerate(slopes) if slope == 0] == list(
        range(tokens - silent, tokens)
    )


@pytest.mark.parametrize(("accuracy", "correct"), [(HARD, False), (EASY, False), (HARD, True)])
def test_other_groups_keep_their_highest_entropies(accuracy: float, correct: bool) -> None:
    several = rows([Row([1.0] * 50, [float(i) for i in range(50)], 1.0, accuracy, correct)])
    assert 0.0 not in gradients(several, CONFIG)[0]


def slow(row: Row, config: HtpoConfig) -> tuple[list[float], list[float], dict[str, int]]:
    """Values, gradients and counts of one response, by the table of the paper, token by token."""
    n = len(row.ratios)
    k = max(int(config.high_entropy_share * n), 1)
    threshold = sorted(row.entropies, reverse=True)[k - 1]
    high = sorted((h for h in row.entropies if h >= threshold), reverse=True)
    low = sorted(h for h in row.entropies if h < threshold)
    floor = low[max(int(config.low_mask_share * len(low)), 1) - 1] if low else -math.inf
    ceiling = high[max(int(config.high_mask_share * len(high)), 1) - 1]
    ceiling = ceiling if config.high_mask_share else math.inf
    hard = row.accuracy < config.hard_below
    values, slopes = [], []
    names = ("clipped_low", "clipped_high", "dual_clipped", "q_rise", "q_fall", "q_recover")
    counts = dict.fromkeys((*names, "masked_low", "masked_high"), 0)
    for r, h in zip(row.ratios, row.entropies, strict=True):
        a = row.advantage
        is_high = h >= threshold
        clipped = min(max(r, 1 - config.clip_low), 1 + config.clip_high)
        value = min(r * a, clipped * a)
        slope = r * a if value == r * a else 0.0
        clip = "" if slope else "clipped_low" if a < 0 else "clipped_high"
        if a < 0 and r > 10:
            value, slope, clip = 10 * a, 0.0, "dual_clipped"
        branch, weight = "", 0.0
        if hard and row.correct and is_high and a > 0:
            if r > 1 + config.clip_high:
                branch, weight = "q_rise", 1 + config.clip_high
            elif r < 1 - config.clip_low:
                branch, weight = "q_fall", min(1 / r, config.ratio_cap)
        elif not row.correct and is_high and a < 0 and r < 1 - config.clip_low:
            branch, weight = "q_recover", 1 - config.clip_low
        if branch or clip:
            counts[branch or clip] += 1
        if branch:
            value = slope = weight * a * (1 if config.sign == "figure" else -1)
        mask = ""
        if hard and row.correct and not is_high and h < floor:
            mask = "masked_low"
        if not hard and row.correct and is_high and h >= ceiling:
            mask = "masked_high"
        if mask:
            counts[mask] += 1
            value = slope = 0.0
        values.append(value)
        slopes.append(slope)
    return values, slopes, counts


@pytest.mark.parametrize("seed", range(30))
def test_against_a_slow_reading_of_the_table(seed: int) -> None:
    rng = Random(seed)
    config = HtpoConfig(
        sign=rng.choice(["figure", "released"]),
        low_mask_share=rng.choice([0.006, 0.2]),
        high_mask_share=rng.choice([0.0, 0.02, 0.5]),
        high_entropy_share=rng.choice([0.2, 0.45]),
    )
    several = [
        Row(
            ratios=[math.exp(rng.gauss(0, 1.2)) for _ in range(n)],
            entropies=[rng.choice([0.0, rng.random(), 0.5]) for _ in range(n)],
            advantage=rng.gauss(0, 1),
            accuracy=rng.choice([0.25, 0.5, 0.75]),
            correct=rng.random() < 0.5,
        )
        for n in (rng.randrange(1, 60) for _ in range(12))
    ]
    batch = rows(several, padding=2)
    found = objective(batch, config)
    slopes = gradients(batch, config)
    totals: dict[str, int] = {}
    for i, row in enumerate(several):
        n = len(row.ratios)
        values, by_hand, counts = slow(row, config)
        assert found.per_token_BT[i, :n].tolist() == pytest.approx(values)
        assert found.per_token_BT[i, n:].abs().sum() == 0
        assert slopes[i][:n] == pytest.approx(by_hand)
        assert not any(slopes[i][n:])
        totals = {name: totals.get(name, 0) + count for name, count in counts.items()}
    assert {name: int(found.stats[name]) for name in totals} == totals
    assert sum(int(found.stats[f"group_{i}"]) for i in range(1, 9)) == int(found.stats["tokens"])
    assert int(found.stats["tokens"]) == sum(len(row.ratios) for row in several)


def test_on_policy_it_is_dapo_and_the_masks() -> None:
    rng = Random(4)
    several = rows(
        [
            Row([1.0] * 40, [rng.random() for _ in range(40)], rng.gauss(0, 1), accuracy, correct)
            for accuracy in (HARD, EASY)
            for correct in (True, False)
        ]
    )
    found = objective(several, CONFIG)
    dapo_BT = clipped_objective(several, CONFIG).per_token_BT
    differs_BT = found.per_token_BT != dapo_BT
    assert differs_BT.sum() == found.stats["masked_high"] == 1
    assert found.stats["q_rise"] + found.stats["q_fall"] + found.stats["q_recover"] == 0


def test_stats_carry_no_gradient_and_add_up() -> None:
    rng = Random(6)
    several = [
        Row(
            [math.exp(rng.gauss(0, 1)) for _ in range(30)],
            [rng.random() for _ in range(30)],
            a,
            p,
            c,
        )
        for a, p, c in ((1.0, HARD, True), (-1.0, HARD, False), (1.0, EASY, True))
    ]
    whole = objective(rows(several), CONFIG).stats
    parts = [objective(rows([row]), CONFIG).stats for row in several]
    for name, count in whole.items():
        assert not count.requires_grad
        assert count == sum(part[name] for part in parts)


@pytest.mark.parametrize("missing", sorted(TokenObjectives.reads))
def test_what_is_missing_is_an_error(missing: str) -> None:
    whole = one_token(2, 1.0, 1.0)
    left = {name: column for name, column in whole.columns.items() if name != missing}
    with pytest.raises(ValueError, match=f"not {missing}: name it in `reads`"):
        TokenObjectives(CONFIG)(replace(whole, columns=left))
