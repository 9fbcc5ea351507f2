"""Responses that grow as a tree, and share the segments before their fork."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from random import Random
from typing import ClassVar

import torch
from torch import Tensor

from ..method.batch import Prompt, Rollout
from .drive import Round, Rounds, uniforms
from .kinds import PlainPlan
from .plans import replay, stop_ids


@dataclass(slots=True)
class Path:
    """A response so far; `nodes` number its segments, and shared segments have the same number."""

    ids: tuple[int, ...] = ()
    nodes: tuple[int, ...] = ()
    done: bool = False


@dataclass(slots=True)
class Tree:
    """The paths of one prompt, in the end `size` of them.

    Before a segment every unfinished path forks into `fork` paths, up to `size`. If all paths have
    ended before there are `size`, new paths begin at random inner nodes.
    """

    prompt: Prompt
    size: int
    segment: int
    fork: int
    paths: list[Path] = field(default_factory=lambda: [Path()])
    rounds: int = 0
    _numbers: Iterator[int] = field(default_factory=lambda: iter(range(1 << 60)))

    def grow(self) -> list[Path]:
        """Fork, and return the paths that need another segment."""
        live = [path for path in self.paths if not path.done]
        if live:
            for path in live * (self.fork - 1):
                if len(self.paths) < self.size:
                    self.paths.append(replace(path))
        elif len(self.paths) < self.size:
            rng = Random(f"{self.prompt.key}/{self.rounds}/fork")
            ended = list(self.paths)
            while len(self.paths) < self.size:
                path = rng.choice(ended)
                depth = rng.randrange(len(path.nodes))
                self.paths.append(Path(path.ids[: depth * self.segment], path.nodes[:depth]))
        self.rounds += 1
        return [path for path in self.paths if not path.done]

    def take(self, path: Path, ids: Sequence[int], done: bool) -> None:
        """Add a sampled segment to a path; `done` ends the path."""
        path.ids += tuple(ids)
        path.nodes += (next(self._numbers),)
        path.done = done


class TreePlan(PlainPlan):
    """Plain responses that fork at the ends of segments.

    TreePO (arXiv 2508.17445, §3). Adds the column `subtree` (B, D) to those of `PlainPlan`: the
    number of the segment at each depth, the same in all rollouts that share it; -1 after the end.
    """

    kind: ClassVar[str] = "tree"
    makes: ClassVar[frozenset[str]] = PlainPlan.makes | {"subtree"}
    segment: ClassVar[int]
    fork: ClassVar[int]

    def rollouts(self, prompts: Sequence[Prompt], sizes: Sequence[int]) -> Rounds[list[Rollout]]:
        trees = [
            Tree(prompt, size, self.segment, self.fork)
            for prompt, size in zip(prompts, sizes, strict=True)
        ]
        stops = stop_ids(prompts[0], self.longest, self.reader) if prompts else frozenset[int]()
        while any(growing := [tree.grow() for tree in trees]):
            asked = [
                (tree, path) for tree, paths in zip(trees, growing, strict=True) for path in paths
            ]
            width = min(self.segment, self.longest - min(len(path.ids) for _, path in asked))
            noise_BT = torch.cat(
                [
                    uniforms(f"{tree.prompt.key}/{tree.rounds}", len(paths), width)
                    for tree, paths in zip(trees, growing, strict=True)
                    if paths
                ]
            )
            whole = [(*tree.prompt.ids, *path.ids) for tree, path in asked]
            written = yield Round(whole, noise_BT, stops)
            for (tree, path), ids in zip(asked, written, strict=True):
                left = ids[: self.longest - len(path.ids)]
                full = len(path.ids) + len(left) == self.longest
                tree.take(path, left, done=left[-1] in stops or full)
        return [self._leaf(tree.prompt, path) for tree in trees for path in tree.paths]

    def _leaf(self, prompt: Prompt, path: Path) -> Rollout:
        found = self._rollout(replay(prompt, (), path.ids, self.longest, self.reader))
        return replace(found, tags={**found.tags, "subtree": path.nodes})

    def columns(self, rollouts: Sequence[Rollout]) -> dict[str, Tensor]:
        depth = math.ceil(self.longest / self.segment)
        subtree_BD = torch.full((len(rollouts), depth), -1, dtype=torch.long)
        drawn_B = torch.zeros(len(rollouts), dtype=torch.long)
        seen: set[tuple[str, int]] = set()  # shared segments were drawn once
        for i, rollout in enumerate(rollouts):
            nodes, written = rollout.tags["subtree"], len(rollout.of("response"))
            subtree_BD[i, : len(nodes)] = torch.tensor(nodes)
            for d, node in enumerate(nodes):
                if (rollout.prompt.key, node) not in seen:
                    seen.add((rollout.prompt.key, node))
                    drawn_B[i] += max(0, min(self.segment, written - d * self.segment))
        return {**super().columns(rollouts), "subtree": subtree_BD, "sampled": drawn_B}
