"""Rows of tokens to learn from, and their tensors.

A row has a prompt, its completion and, for a thought that was summarised at several cuts, all of
the summaries. A summary lies behind the thought as a chunk that sees only the tokens before its cut
and itself: the tree mask. Its positions continue from the cut, so it is scored exactly as in a row
of its own, at a fraction of the tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from ..method.batch import Rollout
from ..method.kernel import LossInputs


@dataclass(frozen=True, slots=True)
class Chunk:
    """A summary: it sees the first `start` tokens of the row, then itself.

    Its first `inserted` tokens carry no loss: the close text, or a copy of the thought's last
    token, from which the first summary token is predicted.
    """

    start: int
    ids: tuple[int, ...]
    inserted: int
    advantage: float


@dataclass(frozen=True, slots=True)
class Row:
    """One prompt with its completion; `advantages` and `learnt` are parallel to the completion.

    `columns` has the values that the objective reads, by the names of the batch's columns.
    """

    prompt: tuple[int, ...]
    completion: tuple[int, ...]
    advantages: tuple[float, ...]
    learnt: tuple[bool, ...]
    chunks: tuple[Chunk, ...] = ()
    columns: Mapping[str, float] = field(default_factory=dict)

    @property
    def tokens(self) -> int:
        """Tokens that a forward pass over this row processes."""
        chunks = sum(len(chunk.ids) for chunk in self.chunks)
        return len(self.prompt) + len(self.completion) + chunks

    @property
    def learnt_tokens(self) -> int:
        return sum(self.learnt) + sum(len(c.ids) - c.inserted for c in self.chunks)

    @property
    def teaches(self) -> bool:
        """Whether a learnt token has an advantage other than 0; otherwise the gradient is 0."""
        own = any(a and learnt for a, learnt in zip(self.advantages, self.learnt, strict=True))
        return own or any(c.advantage and len(c.ids) > c.inserted for c in self.chunks)


def pack(
    rollout: Rollout,
    advantage: Tensor | None,
    branch_advantage: Tensor | None,
    columns: Mapping[str, float],
) -> Row:
    """A rollout with its advantages as a row; the branches of its trunk become chunks.

    `advantage` and `branch_advantage` are the rollout's entries of these columns. A row without an
    advantage teaches nothing. Raises `ValueError` for a branch of a branch.
    """
    begins: dict[int, int] = {}
    completion: list[int] = []
    advantages: list[float] = []
    learnt: list[bool] = []
    chunks = []
    for i, node in enumerate(rollout.nodes):
        if node.after is None:
            begins[i] = len(completion)
            completion += node.ids
            value = 0.0 if advantage is None else advantage[node.place].item()
            advantages += [value] * len(node.ids)
            each = node.learnt if isinstance(node.learnt, tuple) else (node.learnt,) * len(node.ids)
            learnt += [it and advantage is not None for it in each]
        elif node.parent not in begins:
            raise ValueError(
                "a row holds branches of the trunk alone: make every leaf of a deeper tree a "
                "rollout of its own"
            )
        elif branch_advantage is not None:
            start = len(rollout.prompt.ids) + begins[node.parent] + node.after
            value = branch_advantage[node.place].item()
            chunks.append(Chunk(start, node.ids, node.forced, value))
    return Row(
        rollout.prompt.ids,
        tuple(completion),
        tuple(advantages),
        tuple(learnt),
        tuple(chunks),
        columns,
    )


def row_of(ids: Sequence[int]) -> Row:
    """A sequence as a row, all of whose tokens but the first are learnt."""
    count = len(ids) - 1
    return Row(tuple(ids[:1]), tuple(ids[1:]), (0.0,) * count, (True,) * count)


def unpack(row: Row) -> list[Row]:
    """The same row without its tree: a row for the thought, and a row per summary."""
    whole = (*row.prompt, *row.completion)
    return [
        Row(row.prompt, row.completion, row.advantages, row.learnt, columns=row.columns),
        *(
            Row(
                whole[: chunk.start],
                chunk.ids,
                (chunk.advantage,) * len(chunk.ids),
                tuple(i >= chunk.inserted for i in range(len(chunk.ids))),
                columns=row.columns,
            )
            for chunk in row.chunks
        ),
    ]


def collate(rows: Sequence[Row], pad_id: int) -> dict[str, torch.Tensor]:
    """Tensors of a batch, padded on the right to the longest row (W tokens).

    `input_ids`, `position_ids`, `attention_mask` (B, W); where a row has chunks `hidden_from`,
    `hidden_to` (B, W), the tokens that each token does not see; `loss_mask`, `advantages` (B, W-1),
    aligned with the tokens 1 to W-1 that the model predicts; and the rows' columns (B,).
    """
    size, width = len(rows), max(row.tokens for row in rows)
    ids_BW = torch.full((size, width), pad_id, dtype=torch.long)
    position_BW = torch.zeros(size, width, dtype=torch.long)
    real_BW = torch.zeros(size, width, dtype=torch.long)
    learnt_BW = torch.zeros(size, width)
    advantage_BW = torch.zeros(size, width)
    hidden_from_BW = torch.zeros(size, width, dtype=torch.long)
    hidden_to_BW = torch.zeros(size, width, dtype=torch.long)
    for i, row in enumerate(rows):
        begin = len(row.prompt)
        end = begin + len(row.completion)
        ids_BW[i, :end] = torch.tensor((*row.prompt, *row.completion))
        position_BW[i, :end] = torch.arange(end)
        learnt_BW[i, begin:end] = torch.tensor(row.learnt, dtype=torch.float)
        advantage_BW[i, begin:end] = torch.tensor(row.advantages)
        for chunk in row.chunks:
            at, end = end, end + len(chunk.ids)
            ids_BW[i, at:end] = torch.tensor(chunk.ids)
            position_BW[i, at:end] = torch.arange(chunk.start, chunk.start + len(chunk.ids))
            learnt_BW[i, at + chunk.inserted : end] = 1.0
            advantage_BW[i, at:end] = chunk.advantage
            hidden_from_BW[i, at:end] = chunk.start
            hidden_to_BW[i, at:end] = at
        real_BW[i, :end] = 1
    hidden = {"hidden_from": hidden_from_BW, "hidden_to": hidden_to_BW}
    return {
        "input_ids": ids_BW,
        "position_ids": position_BW,
        "attention_mask": real_BW,
        "loss_mask": learnt_BW[:, 1:],
        "advantages": advantage_BW[:, 1:],
        **{name: torch.tensor([row.columns[name] for row in rows]) for name in rows[0].columns},
        **(hidden if any(row.chunks for row in rows) else {}),
    }


def loss_inputs(
    batch: Mapping[str, Tensor], log_probs_BT: Tensor, entropies_BT: Tensor
) -> LossInputs:
    """The inputs of an objective, from a collated batch and its scores.

    Without `old_log_probs` in the batch the current policy counts as the sampling one.
    """
    return LossInputs(
        log_probs_BT,
        batch.get("old_log_probs", log_probs_BT.detach()),
        batch["advantages"],
        batch["loss_mask"],
        {**batch, "entropy": entropies_BT.detach()},
    )


def telling(rows: Sequence[Row], least: int, zeros: bool = False) -> list[Row]:
    """The rows with a gradient, filled up with others to `least` rows.

    A group with equal rewards has advantages of 0, so the gradients of its rows are 0: they count
    in the loss's denominator and need not be computed, but every batch must have a row. `zeros`
    keeps them, for an objective or a caller that reads every learnt token.
    """
    told = [row for row in rows if (row.learnt_tokens if zeros else row.teaches)]
    silent = [row for row in rows if not (row.learnt_tokens if zeros else row.teaches)]
    spare = min(rows, key=lambda row: row.tokens)
    silent += [replace(spare, learnt=(False,) * len(spare.learnt), chunks=())] * least
    return [*told, *silent[: max(0, least - len(told))]]


def split_by_tokens(rows: Sequence[Row], parts: int) -> list[list[Row]]:
    """`parts` batches of rows of similar length, with about equally many padded tokens each.

    Rows are sorted by length to save padding; every row is in exactly one batch. A batch is empty
    only where there are fewer rows than parts.
    """
    ordered = sorted(rows, key=lambda row: row.tokens)
    cost = sum(row.tokens for row in ordered) / parts
    made: list[list[Row]] = [[] for _ in range(parts)]
    part = 0
    for i, row in enumerate(ordered):
        full = made[part] and (len(made[part]) + 1) * row.tokens > cost * 1.15
        if (full or len(ordered) - i < parts - part) and part < parts - 1:
            part += 1
        made[part].append(row)
    return made


def batches_of_tokens(rows: Sequence[Row], most: int) -> list[list[Row]]:
    """Batches of rows of similar length with at most `most` tokens each, padding included.

    A row that is longer has a batch of its own. Every row is in exactly one batch.
    """
    made: list[list[Row]] = []
    for row in sorted(rows, key=lambda row: row.tokens):
        if not made or (len(made[-1]) + 1) * row.tokens > most:
            made.append([])
        made[-1].append(row)
    return made


def passes_of(rows: Sequence[Row], parts: int, most: int | None) -> list[list[Row]]:
    """The batches of one update: at least `parts`, and none above `most` tokens."""
    if most is None:
        return split_by_tokens(rows, parts)
    return split_further(batches_of_tokens(rows, most), parts)


def split_further(parts: Sequence[list[Row]], count: int) -> list[list[Row]]:
    """`count` batches of the same rows. The widest batches are halved; once only single rows are
    left, further batches are copies of a row that teach nothing.
    """
    made = list(parts)
    while len(made) < count:
        widest = max(range(len(made)), key=lambda i: len(made[i]))
        part = made[widest]
        half = len(part) // 2
        if half:
            made[widest : widest + 1] = [part[:half], part[half:]]
        else:
            made.append([_silent(part[0])])
    return made


def _silent(row: Row) -> Row:
    """A row of the same prompt without learnt tokens."""
    return Row(row.prompt, row.completion[:1], (0.0,), (False,), columns=row.columns)
