"""BRPO's numbers, and that its advantages follow the gradient of the objective they stand for."""

from collections.abc import Callable
from itertools import product
from random import Random

import pytest
import torch
from torch import Tensor

from ponder.training.method import brpo
from ponder.training.method.batch import Batch
from ponder.training.method.brpo import BrpoConfig
from ponder.training.method.kernel import LossInputs, aggregate, clipped_objective
from training.method.scored import after, scored

WORKED = torch.tensor([[0, 0.25, 0.75, 1], [0, 0, 0, 0.5], [0.5, 1, 1, 1], [0, 0, 0, 0]])


def summaries(shares_Bm: Tensor) -> Tensor:
    """Four summaries of each budget, of which these shares are right; (B, m, 4)."""
    return torch.arange(4) < shares_Bm[:, :, None] * 4


def outcomes(
    correct_BmA: Tensor, lengths: list[int], group: int = 4, cut_Bm: list[list[int]] | None = None
) -> Batch:
    """Every budget leaves another cut where none are given."""
    sizes = [group] * (len(lengths) // group)
    cuts = torch.arange(correct_BmA.shape[1]).repeat(len(lengths), 1)
    cuts = cuts if cut_Bm is None else torch.tensor(cut_Bm)
    return scored(sizes, summary_correct=correct_BmA, length=lengths, cut=cuts)


def tokens(found: Batch, starts: tuple[int, ...], longest: int) -> Tensor:
    """The advantages (B, `longest`) of the thoughts' tokens; 0 after them."""
    position_T = torch.arange(longest)
    segment_T = torch.searchsorted(torch.tensor(starts), position_T, right=True) - 1
    written_BT = position_T < found["length"][:, None]
    return torch.where(written_BT, found["advantage"][:, segment_T], 0)


@pytest.mark.parametrize(
    ("prior", "expected"),
    [
        (
            "uniform",
            [
                [0.125, 0.24219, 0.26302, 0.11719],
                [-0.25, -0.13281, -0.00781, 0.08594],
                [0.5, 0.39844, 0.15885, 0.03683],
                [-0.375, -0.25781, -0.13281, -0.03906],
            ],
        ),
        (
            "linear",
            [
                [0.21875, 0.34219, 0.37604, 0.1875],
                [-0.25625, -0.13281, 0.00938, 0.1375],
                [0.49375, 0.45469, 0.21771, 0.05893],
                [-0.45625, -0.33281, -0.19062, -0.0625],
            ],
        ),
        (
            "base",
            [
                [0.375, 0.53125, 0.60417, 0.46875],
                [-0.125, 0.03125, 0.1875, 0.34375],
                [0.375, 0.40625, 0.27083, 0.14732],
                [-0.625, -0.46875, -0.3125, -0.15625],
            ],
        ),
    ],
)
def test_advantages_of_the_worked_group(prior: brpo.Prior, expected: list[list[float]]) -> None:
    config = BrpoConfig(group_size=4, prior=prior)
    seen = outcomes(summaries(WORKED), [9000] * 4)
    found = after(config, seen)
    assert torch.equal(found["reward"].mean(2), WORKED)
    for row, values in zip(found["advantage"].tolist(), expected, strict=True):
        assert row == pytest.approx(values, abs=1e-5)


def test_priors() -> None:
    budgets = (1000, 3000, 4000)
    assert brpo.prior_weights("base", budgets).tolist() == [0, 0, 1]
    assert brpo.prior_weights("uniform", budgets).tolist() == pytest.approx([1 / 3] * 3)
    assert brpo.prior_weights("linear", budgets).tolist() == [0.125, 0.375, 0.5]


def loops(r: list[list[float]], weights: list[float], config: BrpoConfig) -> list[list[float]]:
    """A_s(g) as the paper writes it, one sum at a time."""
    m, decay = len(weights), config.decay
    found = []
    for g, mine in enumerate(r):
        group = r[g - g % config.group_size :][: config.group_size]
        row = []
        for s in range(m):
            left = sum(weights[s:])
            past = 0.0
            if s:
                seen = sum(decay ** (s - j) * mine[j] for j in range(s))
                past = seen / sum(decay ** (s - j) for j in range(s)) * left
            returns = [sum(weights[j] * other[j] for j in range(s, m)) for other in group]
            common = sum(returns) / len(returns)
            value = {
                "full": s / m * past + (m - s) / m * common,
                "v1": past,
                "v2": common,
                "none": 0.0,
            }[config.variance_reduction]
            row.append(sum(weights[j] * mine[j] for j in range(s, m)) - value)
        found.append(row)
    return found


@pytest.mark.parametrize("variance_reduction", ["full", "v1", "v2", "none"])
@pytest.mark.parametrize("prior", ["base", "uniform", "linear"])
def test_against_loops(prior: brpo.Prior, variance_reduction: brpo.VarianceReduction) -> None:
    rng = Random(f"{prior}{variance_reduction}")
    for _ in range(10):
        m, group_size = rng.randrange(1, 7), rng.randrange(2, 6)
        config = BrpoConfig(
            group_size=group_size,
            budgets=tuple(sorted(rng.sample(range(1, 100), m))),
            prior=prior,
            decay=rng.uniform(0.1, 1),
            variance_reduction=variance_reduction,
        )
        correct_BmA = torch.tensor(
            [
                [[rng.random() < 0.5 for _ in range(4)] for _ in range(m)]
                for _ in range(3 * group_size)
            ]
        )
        lengths = [rng.randrange(1, 100) for _ in range(3 * group_size)]
        found = after(config, outcomes(correct_BmA, lengths, group_size))
        weights = brpo.prior_weights(prior, config.budgets).tolist()
        expected = loops(correct_BmA.float().mean(2).tolist(), weights, config)
        for row, values in zip(found["advantage"].tolist(), expected, strict=True):
            assert row == pytest.approx(values, abs=1e-5)


def test_segments_become_tokens() -> None:
    """A token answers for the budgets that end after it; what follows the thought is not its."""
    config = BrpoConfig(group_size=2, budgets=(2, 5, 6))
    shares_Bm = torch.tensor([[0, 0.5, 1], [0.25, 0.25, 0.25]])
    found = after(config, outcomes(summaries(shares_Bm), [6, 4], 2))
    tokens_BT = tokens(found, (0, 2, 5), 8)
    (a, b, c), (d, e, _) = found["advantage"].tolist()
    assert tokens_BT.tolist() == [[a, a, b, b, b, c, 0, 0], [d, d, e, e, 0, 0, 0, 0]]


def test_summaries_are_compared_with_those_of_their_cut() -> None:
    """The thought ended at 50 tokens: budgets 60 and 90 cut it at the same place."""
    config = BrpoConfig(group_size=2, budgets=(30, 60, 90), summaries=2)
    correct_BmA = torch.tensor([[[1, 0], [1, 1], [1, 0]], [[0, 0], [1, 0], [1, 1]]]).bool()
    cuts = [[30, 51, 51], [30, 60, 90]]
    found = after(config, outcomes(correct_BmA, [51, 90], 2, cuts))
    assert found["branch_advantage"].tolist() == [
        [[0.5, -0.5], [0.25, 0.25], [0.25, -0.75]],
        [[0, 0], [0.5, -0.5], [0, 0]],
    ]


def test_grpo_is_a_reading_of_the_same_rollouts() -> None:
    config = BrpoConfig(
        group_size=2,
        budgets=(30, 60),
        prior="base",
        variance_reduction="v2",
        summary_advantage="last",
        summaries=1,
    )
    correct_BmA = torch.tensor([[[1], [1]], [[1], [0]], [[0], [1]], [[1], [1]]]).bool()
    found = after(config, outcomes(correct_BmA, [60] * 4, 2))
    assert found["advantage"].tolist() == [[0.5] * 2, [-0.5] * 2, [0, 0], [0, 0]]
    assert found["branch_advantage"][..., 0].tolist() == [[0, 0.5], [0, -0.5], [0, 0], [0, 0]]


def test_the_gradient_is_the_hand_written_one() -> None:
    """On policy: Σ A_t (1[v = o_t] - π_v) over the constant denominator, for every logit v."""
    config = BrpoConfig(group_size=2, budgets=(2, 4), prior="uniform")
    seen = after(config, outcomes(summaries(torch.tensor([[0.25, 1], [0, 0.5]])), [4, 3], 2))
    advantages_BT = tokens(seen, (0, 2), 5)
    generator = torch.Generator().manual_seed(3)
    logits_BTV = torch.randn(2, 5, 7, generator=generator, requires_grad=True)
    ids_BT = torch.randint(7, (2, 5), generator=generator)
    mask_BT = torch.arange(5) < seen["length"][:, None]
    log_probs_BTV = logits_BTV.log_softmax(2)
    log_probs_BT = log_probs_BTV.gather(2, ids_BT[:, :, None]).squeeze(2)
    rows = LossInputs(log_probs_BT, log_probs_BT.detach(), advantages_BT, mask_BT)
    total = 2.0 * config.longest
    objective = aggregate(clipped_objective(rows, config).per_token_BT, mask_BT, total)
    torch.autograd.backward(objective)

    onehot_BTV = torch.nn.functional.one_hot(ids_BT, 7)
    by_hand_BTV = advantages_BT[:, :, None] * (onehot_BTV - log_probs_BTV.detach().exp()) / 8
    assert logits_BTV.grad is not None
    assert torch.allclose(logits_BTV.grad, by_hand_BTV, atol=1e-7)
    assert logits_BTV.grad[1, 3:].abs().max() == 0


def two_segment_policy() -> tuple[Tensor, Callable[[int, int], tuple[float, float]]]:
    """Logits of a policy over two tokens of two values each, and what its prefixes earn."""
    logits = torch.tensor([0.3, -0.7, 1.1], dtype=torch.float64, requires_grad=True)
    first, second = (0.25, 0.75), ((1.0, 0.0), (0.5, 0.75))
    return logits, lambda a, b: (first[a], second[a][b])


def log_probs(logits: Tensor, a: int, b: int) -> Tensor:
    """Of both tokens; the second one's logit depends on the first."""
    p_a, p_b = logits[0].sigmoid(), logits[1 + a].sigmoid()
    return torch.stack([p_a if a else 1 - p_a, p_b if b else 1 - p_b]).log()


@pytest.mark.parametrize(
    ("variance_reduction", "scale"),
    [("none", (1.0, 1.0)), ("v1", (1.0, 1.0)), ("v2", (0.5, 0.5)), ("full", (0.5, 0.75))],
)
def test_the_expected_gradient_is_the_objectives(
    variance_reduction: brpo.VarianceReduction, scale: tuple[float, float]
) -> None:
    """Over all pairs of thoughts the estimate is ∇ E Σ_j P_j r_j.

    V1 knows only the past and leaves it so; V2 includes the thought itself, which scales a
    segment's gradient by 1 - 1/G, and `full` weighs V2 by (m - s)/m.
    """
    logits, earn = two_segment_policy()
    config = BrpoConfig(
        group_size=2, budgets=(1, 2), prior="linear", variance_reduction=variance_reduction
    )
    weights = (1 / 3, 2 / 3)
    thoughts = list(product((0, 1), repeat=2))

    value = torch.zeros((), dtype=torch.float64)
    for a, b in thoughts:
        earned = sum(w * r for w, r in zip(weights, earn(a, b), strict=True))
        value = value + log_probs(logits, a, b).sum().exp() * earned
    (exact,) = torch.autograd.grad(value, logits)

    expected = torch.zeros(3, dtype=torch.float64)
    for pair in product(thoughts, repeat=2):
        log_probs_BT = torch.stack([log_probs(logits, *thought) for thought in pair])
        chance = log_probs_BT.detach().sum().exp()
        shares_Bm = torch.tensor([earn(*thought) for thought in pair])
        seen = after(config, outcomes(summaries(shares_Bm), [2, 2], 2))
        mask_BT = torch.ones(2, 2, dtype=torch.bool)
        rows = LossInputs(
            log_probs_BT,
            log_probs_BT.detach(),
            tokens(seen, (0, 1), 2).double(),
            mask_BT,
        )
        objective = aggregate(clipped_objective(rows, config).per_token_BT, mask_BT, 2)
        (gradient,) = torch.autograd.grad(objective, logits)
        expected += chance * gradient
    by_segment = torch.tensor([scale[0], scale[1], scale[1]])
    assert expected.tolist() == pytest.approx((exact * by_segment).tolist(), abs=1e-7)
