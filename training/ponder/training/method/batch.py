"""Rollouts, and the batch of rollouts that stages pass on to each other."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from random import Random
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ponder.tasks.problems import Problem
from ponder.tasks.workers import Verdict


@dataclass(frozen=True, slots=True)
class Prompt:
    """A problem's tokens up to the open thought; `key` seeds its samples.

    `begun` has the tokens that earlier steps sampled of each of its rollouts, if any did.
    """

    problem: Problem
    ids: tuple[int, ...]
    key: str
    begun: tuple[tuple[int, ...], ...] = ()


@dataclass(frozen=True, slots=True)
class Node:
    """Tokens that follow the prompt, or the node `parent` (its place in the rollout).

    `after` None continues the parent; a number branches off after so many of its tokens. The first
    `forced` tokens of a branch are ours and carry no loss; a branch has at least one, from which
    its next token is predicted. `learnt` is one flag for all tokens, or one for each. `place` is
    the index of the node's advantage in its rollout's entry of the column `advantage`, or of
    `branch_advantage` for a branch.
    """

    ids: tuple[int, ...]
    kind: str
    parent: int | None = None
    after: int | None = None
    forced: int = 0
    learnt: bool | tuple[bool, ...] = True
    place: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer of a rollout, at `place` among its answers; `verdict` None: not judged yet.

    `formatted`: thought and answer ended as the rollout's plan requires.
    """

    text: str
    formatted: bool
    place: tuple[int, ...] = ()
    verdict: Verdict | None = None

    @property
    def correct(self) -> bool:
        return self.formatted and self.verdict is not None and self.verdict.correct


@dataclass(frozen=True, slots=True)
class Rollout:
    """A prompt's continuation as a small tree; `answers` None: its tokens changed, read it anew.

    `tags` are a plan's notes for its method's stages, such as the promised budget.
    """

    prompt: Prompt
    nodes: tuple[Node, ...]
    thinking_tokens: int
    answers: tuple[Answer, ...] | None = None
    tags: Mapping[str, Any] = field(default_factory=dict)

    @property
    def trunk(self) -> tuple[Node, ...]:
        """The nodes that continue each other from the prompt on."""
        return tuple(node for node in self.nodes if node.after is None)

    @property
    def tokens(self) -> tuple[int, ...]:
        """The tokens of the trunk."""
        return tuple(i for node in self.trunk for i in node.ids)

    def of(self, kind: str) -> tuple[int, ...]:
        """The tokens of the trunk's nodes of one kind."""
        return tuple(i for node in self.trunk if node.kind == kind for i in node.ids)

    def cut(self, kind: str, tokens: int) -> Rollout:
        """The rollout cut after the first `tokens` tokens of nodes of one kind.

        Raises `ValueError` where the trunk has branches.
        """
        if len(self.trunk) < len(self.nodes):
            raise ValueError("a rollout with branches cannot be cut: its branches saw the tail")
        nodes: list[Node] = []
        left = tokens
        for node in self.nodes:
            if node.kind == kind:
                nodes.append(replace(node, ids=node.ids[:left]))
                left -= len(node.ids)
            else:
                nodes.append(node)
            if left <= 0:
                break
        return replace(self, nodes=tuple(nodes), answers=None)


@dataclass(frozen=True, slots=True)
class Batch:
    """B rollouts in Q groups, one group per prompt, with named columns.

    `sizes` (Q) counts the rollouts of each group, or the rollouts to sample before there are any.
    A column's first axis is B.
    """

    prompts: tuple[Prompt, ...]
    sizes: tuple[int, ...]
    rollouts: tuple[Rollout, ...] = ()
    columns: Mapping[str, Tensor] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Tensor:
        if name not in self.columns:
            raise KeyError(f"the batch has no column {name}: it has {', '.join(self.columns)}")
        return self.columns[name]

    def with_columns(self, **columns: Tensor) -> Batch:
        return replace(self, columns={**self.columns, **columns})

    def with_rollouts(self, rollouts: Sequence[Rollout]) -> Batch:
        """Replace the rollouts; the columns stay as they are until the batch is judged again."""
        return replace(self, rollouts=tuple(rollouts))

    @property
    def bounds(self) -> list[tuple[int, int]]:
        """The indices at which each group's rollouts begin and end."""
        ends = [0]
        for size in self.sizes:
            ends.append(ends[-1] + size)
        return list(pairwise(ends))

    def per_group(self, of_group: Callable[..., Tensor], *names: str) -> Tensor:
        """Apply `of_group` to each group's part of the named columns; returns (B, …)."""
        given = [self[name] for name in names]
        if not self.sizes:  # a dummy rollout gives the shape of an empty result
            return of_group(*(c.new_zeros((1, *c.shape[1:])) for c in given))[:0]
        return torch.cat(
            [of_group(*(column[low:high] for column in given)) for low, high in self.bounds]
        )

    def keep(self, kept_B: Tensor) -> Batch:
        """The rollouts where `kept_B` (bool) is true; a group without any of them is dropped."""
        where = kept_B.nonzero().flatten().tolist()
        sizes = [int(kept_B[low:high].sum()) for low, high in self.bounds]
        left = [(p, size) for p, size in zip(self.prompts, sizes, strict=True) if size]
        return Batch(
            tuple(prompt for prompt, _ in left),
            tuple(size for _, size in left),
            tuple(self.rollouts[i] for i in where) if self.rollouts else (),
            {name: column[where] for name, column in self.columns.items()},
        )

    def groups(self, kept: Sequence[bool]) -> Batch:
        """Whole groups, where `kept` (Q) is true."""
        pairs = zip(self.sizes, kept, strict=True)
        return self.keep(torch.tensor([keep for size, keep in pairs for _ in range(size)]).bool())

    @staticmethod
    def joined(batches: Sequence[Batch]) -> Batch:
        """Join batches with the same columns, one after the other."""
        return Batch(
            tuple(prompt for batch in batches for prompt in batch.prompts),
            tuple(size for batch in batches for size in batch.sizes),
            tuple(rollout for batch in batches for rollout in batch.rollouts),
            {name: torch.cat([b[name] for b in batches]) for name in batches[0].columns},
        )


class Scores(NamedTuple):
    """Scores of all tokens of a sequence but its first, under the sampling policy; (T - 1,) each.

    The natural log-probability of the token, and the entropy of its distribution in nats, at the
    sampling temperature.
    """

    log_probs: Tensor
    entropies: Tensor


def unscored(sequences: Sequence[Sequence[int]]) -> list[Scores]:
    raise RuntimeError("a stage asks for scores: give this step a Share with `score`")


def unpredicted(prompts: Sequence[str], history: Sequence[tuple[str, float]]) -> list[float]:
    raise RuntimeError("a stage asks for predictions: set `predicts` on its component")


def undrawn(key: str) -> Prompt:
    raise RuntimeError(f"this context cannot give prompt {key} again: give it a `redraw`")


@dataclass(frozen=True, slots=True)
class Context:
    """What a stage may use beside the batch.

    `step` counts from 0. `rng` is seeded by the seed, the step and the process. `judge` reads and
    judges the rollouts whose tokens changed and recomputes their columns. `reduce` adds a tensor up
    over all processes, of which this one is number `rank` of `world`. Every process must call it
    equally often, so it raises in the stages before `credit`, which repeat where groups are
    replaced. `score` runs the policy over sequences of tokens; it, too, works from `credit` on.
    `predict` gives each prompt's chance of a right rollout, from earlier prompts and their shares
    of right ones. `state` is saved with checkpoints as JSON, by the main process for all: change it
    only by results of `reduce`. `redraw` returns the prompt of a key again. `sampled` has the
    step's rollouts so far, kept or not, with rewards.
    """

    step: int
    rng: Random
    judge: Callable[[Batch], Batch]
    reduce: Callable[[Tensor], Tensor]
    state: dict[str, Any]
    sampled: list[Batch] = field(default_factory=list)
    rank: int = 0
    world: int = 1
    score: Callable[[Sequence[Sequence[int]]], list[Scores]] = unscored
    predict: Callable[[Sequence[str], Sequence[tuple[str, float]]], list[float]] = unpredicted
    redraw: Callable[[str], Prompt] = undrawn

    def gather(self, values: Tensor) -> tuple[Tensor, slice]:
        """The values (N, …) of all processes in the order of ranks, and the slice of this one's.

        In double precision; every process must call it equally often.
        """
        counts = torch.zeros(self.world, dtype=torch.long)
        counts[self.rank] = len(values)
        counts = self.reduce(counts)
        start = int(counts[: self.rank].sum())
        mine = slice(start, start + len(values))
        everyone = torch.zeros((int(counts.sum()), *values.shape[1:]), dtype=torch.double)
        everyone[mine] = values.to(everyone)
        return self.reduce(everyone), mine
