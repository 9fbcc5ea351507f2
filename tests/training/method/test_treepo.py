from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from random import Random
from statistics import fmean

import pytest
import torch

from ponder.tasks.problems import Problem
from ponder.training.method.batch import Prompt, Rollout
from ponder.training.method.grpo import GrpoConfig
from ponder.training.method.presets import Method
from ponder.training.method.treepo import TreePo
from ponder.training.rollout.drive import pull
from ponder.training.rollout.plans import Reader
from training.method.scored import after, scored


def prompts(reader: Reader, count: int) -> list[Prompt]:
    asked = [Problem(f"t:{i}", "t", 1, f"What is {i} + 1?", str(i + 1)) for i in range(count)]
    return [reader.prompt(problem, f"key/{problem.id}") for problem in asked]


def grown(
    reader: Reader, asked: Sequence[Prompt], sizes: Sequence[int], segment: int = 4
) -> list[Rollout]:
    """Trees with segments of 4 tokens, at most 22 of them, by a model that ends one in nine."""
    config = GrpoConfig(longest=22, add=[{"treepo": {"segment": segment}}])
    plan = Method.of(config).plan(config, reader)
    (word,) = reader.tokenizer.encode(" and")

    def sampler(
        whole: Sequence[Sequence[int]], noise_BT: torch.Tensor, stop_ids: frozenset[int]
    ) -> list[list[int]]:
        assert noise_BT.shape in [(len(whole), width) for width in (min(segment, 22), 2)]
        eos = min(stop_ids)
        written = []
        for noise in noise_BT.tolist():
            ids = [word + int(9 * it) for it in noise]
            ends = next((t for t, it in enumerate(noise) if it > 0.89), None)
            written.append(ids if ends is None else [*ids[:ends], eos])
        return written

    return pull(plan.rollouts(asked, sizes), sampler)


@pytest.mark.parametrize("size", [2, 3, 8, 16])
def test_a_tree_has_so_many_leaves_and_they_share_what_they_share(
    reader: Reader, size: int
) -> None:
    asked = prompts(reader, 6)
    found = grown(reader, asked, [size] * 6)
    assert [rollout.prompt for rollout in found] == [p for p in asked for _ in range(size)]
    ended = 0
    for q in range(6):
        leaves = found[q * size : (q + 1) * size]
        said: dict[int, set[tuple[int, ...]]] = defaultdict(set)
        for leaf in leaves:
            ids, nodes = leaf.of("response"), leaf.tags["subtree"]
            assert 1 <= len(ids) <= 22 and len(nodes) == -(-len(ids) // 4)
            ended += len(ids) < 22
            for depth, node in enumerate(nodes):
                said[node].add(ids[: 4 * (depth + 1)])
        assert all(len(paths) == 1 for paths in said.values())
        assert len({leaf.tags["subtree"] for leaf in leaves}) == size
        shared = [leaf.tags["subtree"][:1] for leaf in leaves]
        assert len(set(shared)) < size or size == 2
    assert ended


def test_the_first_segments_double(reader: Reader) -> None:
    """Of 16, unless one ends: 2 distinct first segments, 4 second, 8 third, 16 fourth ones."""
    found = grown(reader, prompts(reader, 12), [16] * 12)
    trees = [found[i : i + 16] for i in range(0, len(found), 16)]
    whole = [t for t in trees if all(len(leaf.tags["subtree"]) >= 4 for leaf in t)]
    for tree in whole:
        for depth in range(4):
            assert len({leaf.tags["subtree"][depth] for leaf in tree}) == 2 ** (depth + 1)


def test_no_more_is_sampled_than_a_response_may_have(reader: Reader) -> None:
    """A segment longer than the longest response: each is sampled whole."""
    found = grown(reader, prompts(reader, 2), [4, 4], segment=512)
    assert max(len(leaf.of("response")) for leaf in found) == 22


def test_a_tree_is_its_own_whatever_grows_beside_it(reader: Reader) -> None:
    asked = prompts(reader, 3)
    together = grown(reader, asked, [4, 6, 5])
    assert grown(reader, asked[1:2], [6]) == together[4:10]


def test_the_slow_way_says_the_same() -> None:
    """The authors' names of leaves, `root#0#2`, and their loop over depths."""
    rng = Random(4)
    for _ in range(60):
        leaves: list[tuple[int, ...]] = []
        for _ in range(rng.randint(1, 9)):
            depth, path = rng.randint(1, 4), (0,)
            for _ in range(depth):
                path = (*path, 10 * path[-1] + rng.randint(1, 2))
            leaves.append((*path, 10_000 + len(leaves)))
        rewards = [float(rng.random() < 0.5) for _ in leaves]
        for weighting in ("mean", "size"):
            expected = []
            for leaf, reward in zip(leaves, rewards, strict=True):
                parts = []
                for depth in range(len(leaf) - 1):
                    members = [
                        r
                        for other, r in zip(leaves, rewards, strict=True)
                        if other[: depth + 1] == leaf[: depth + 1]
                    ]
                    if depth == 0 or len(members) > 1:
                        parts.append((reward - fmean(members), len(members)))
                weights = [n if weighting == "size" else 1 for _, n in parts]
                total = sum(w * a for w, (a, _) in zip(weights, parts, strict=True))
                expected.append(total / sum(weights))
            widest = max(map(len, leaves)) - 1
            nodes = [[*leaf[1:], *[-1] * (widest - len(leaf) + 1)] for leaf in leaves]
            found = TreePo(weighting=weighting).credit(torch.tensor(rewards), torch.tensor(nodes))
            assert found.tolist() == pytest.approx(expected)


def test_the_methods_own_std_divides() -> None:
    config = GrpoConfig(group_size=4, add=[{"treepo": {}}])
    seen = scored([4], correct=[1, 0, 0, 0], subtree=[[0, 2], [0, 3], [1, 4], [1, 5]])
    found = after(config, seen)["advantage"].tolist()
    assert found == pytest.approx([2 * x for x in (0.625, -0.375, -0.125, -0.125)], rel=1e-4)


def test_a_leaf_reads_as_the_response_that_it_is(reader: Reader) -> None:
    config = GrpoConfig(longest=22, add=[{"treepo": {"segment": 4}}])
    plan = Method.of(config).plan(config, reader)
    leaves = grown(reader, prompts(reader, 2), [4, 4])
    assert [plan.read(leaf).thinking_tokens for leaf in leaves] == [
        leaf.thinking_tokens for leaf in leaves
    ]
    columns = plan.columns(leaves)
    assert set(columns) == set(plan.makes) - {"group_accuracy"}
    assert columns["subtree"].shape == (8, 6)
    segments = {
        (leaf.prompt.key, node): len(leaf.of("response")[4 * d : 4 * d + 4])
        for leaf in leaves
        for d, node in enumerate(leaf.tags["subtree"])
    }
    assert columns["sampled"].sum() == sum(segments.values()) < columns["length"].sum()
    assert columns["length"].tolist() == [len(leaf.of("response")) for leaf in leaves]
