from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import pytest
import torch
from pydantic import ValidationError

from ponder.errors import SetupError
from ponder.tasks.problems import Problem
from ponder.tasks.tiny import TINY_TASKS
from ponder.tasks.workers import Verdict
from ponder.training.engines.anchor import Anchor
from ponder.training.method.grpo import GrpoConfig
from ponder.training.method.kernel import LossInputs
from ponder.training.method.presets import Method
from ponder.training.method.t1 import REFERENCE, T1
from ponder.training.rollout.drive import Sampler
from ponder.training.rollout.experience import Collector, Share
from ponder.training.rollout.plans import Reader


def test_the_objective_loses_the_divergence_from_the_anchor() -> None:
    plain = Method.of(GrpoConfig())
    held = Method.of(GrpoConfig(add=[{"t1": {"beta": 0.3}}]))
    assert held.ships == plain.ships and GrpoConfig(add=[{"t1": {}}]).anchor == 0.99
    generator = torch.Generator().manual_seed(0)
    old, new, reference = -3 * torch.rand(3, 2, 5, generator=generator)
    mask = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]).float()
    advantage = torch.tensor([[1.0], [-1.0]]).expand(2, 5)
    new.requires_grad_()
    rows = LossInputs(new, old, advantage, mask, {REFERENCE: reference})
    without, found = plain.objective(rows), held.objective(rows)
    total = 0.0
    for i in range(2):
        for t in range(5):
            kl = 0.0
            if mask[i, t]:
                ratio = math.exp(reference[i, t].item() - new[i, t].item())
                kl = ratio - math.log(ratio) - 1
            total += kl
            lost = without.per_token_BT[i, t] - found.per_token_BT[i, t]
            assert lost.item() == pytest.approx(0.3 * kl, abs=1e-6)
    assert found.stats["anchor_kl"].item() == pytest.approx(total, rel=1e-5)
    (without.per_token_BT - found.per_token_BT).sum().backward()
    gradient = 0.3 * (1 - (reference - new.detach()).exp()) * mask
    assert new.grad is not None and torch.allclose(new.grad, gradient, atol=1e-6)


def test_an_anchor_follows_and_is_kept() -> None:
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 2)
    model.bias.requires_grad_(False)
    begun = model.weight.detach().clone()
    anchor = Anchor(model, decay=0.9)
    expected = begun.clone()
    for n in range(3):
        with torch.no_grad():
            model.weight += n + 1
        expected = 0.9 * expected + 0.1 * model.weight.detach()
        anchor.follow()
    own = model.weight.detach().clone()
    with anchor.inside():
        assert torch.allclose(model.weight, expected)
    assert torch.equal(model.weight, own)
    again = Anchor(model, decay=0.9)
    again.load_state_dict({k: v.clone() for k, v in anchor.state_dict().items()})
    with again.inside():
        assert torch.allclose(model.weight, expected)


def test_sharded_weights_have_no_anchor() -> None:
    model = torch.nn.Linear(3, 2)
    model.zero_optimization_partition_weights = lambda: True
    with pytest.raises(SetupError, match=r"set t1.beta to 0"):
        Anchor(model, 0.9)


def test_thoughts_are_probed_where_they_are_cut(reader: Reader) -> None:
    """A model that knows the answer after 4 words of 8, and always with all of them."""
    encode, eos = reader.tokenizer.encode, min(reader.tokenizer.eos_token_ids)
    (word,), end = encode(" and"), encode(reader.form.end.text)
    close = tuple(reader.form.close.ids)
    widths: list[tuple[int, ...]] = []

    def sampler(
        whole: Sequence[Sequence[int]], noise_BT: torch.Tensor, stop_ids: frozenset[int]
    ) -> list[list[int]]:
        widths.append(tuple(noise_BT.shape))
        written = []
        for ids in whole:
            if tuple(ids[-len(close) :]) == close:
                known = ids[: -len(close)].count(word) >= 4
                written.append([*encode("yes" if known else "no"), eos])
            else:
                written.append([*[word] * 8, *end, *encode("yes"), eos])
        return written

    def judge(asked: Sequence[tuple[Problem, str]]) -> list[Verdict]:
        return [Verdict(text.strip() == "yes") for _, text in asked]

    config = GrpoConfig(group_size=3, longest=40, add=[{"t1": {"probed": 2, "answer_tokens": 5}}])
    made = Collector(config, TINY_TASKS, reader, judge, prompts=2, updates=1, seed=0)
    told: Sampler = sampler
    metrics = made.collect(0, told, Share()).metrics
    found = [metrics[f"probe_accuracy_{cut}"] for cut in (0, 25, 50, 75)]
    assert found == [0, 0, 1, 1] and metrics["accuracy"] == 1
    assert all(low <= high for low, high in pairwise(found))
    assert widths == [(6, 40), (2 * 2 * 4, 5)]
    assert metrics["thinking_tokens"] == 8
    answer = len(encode("yes")) + 1
    assert metrics["sampled_tokens"] == 6 * (8 + len(end) + answer) + 8 * answer + 8 * (
        len(encode("no")) + 1
    )
    with pytest.raises(ValidationError, match="must differ by a percent"):
        T1(cuts=(0.501, 0.502))


@pytest.mark.parametrize("names", [["t1", "treepo"], ["treepo", "t1"]])
def test_it_probes_whatever_rolls_out(names: list[str]) -> None:
    plan = Method.of(GrpoConfig(add=[{name: {}} for name in names])).plan
    assert {"subtree", "probe_accuracy_50"} <= plan.makes and plan.kind == "tree"
