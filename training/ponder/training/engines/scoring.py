"""Log-probabilities and entropies of given tokens, without the logits of a whole batch.

With a vocabulary of 150,000 the logits of 16,000 tokens take 10 GB, but a trainer needs only two
numbers per token. So the head runs on the learnt tokens alone, on some thousand at a time, and its
logits are recomputed for the backward pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import MethodType
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ..method.batch import Scores
from ..rollout.masks import tree_masks
from ..rollout.rows import collate, passes_of, row_of

LOGITS_AT_ONCE = 1 << 25
"""Most logits in memory at the same time: 128 MiB of float32."""


def score(model: Any, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Log-probabilities and entropies (B, W-1) of the tokens 1 to W-1; 0 where nothing is learnt.

    `batch` comes from `rollout.rows.collate`; `model` was prepared by `add_scoring` and may be
    wrapped. Logarithms are natural, entropies in nats and without gradient.
    """
    scored: tuple[Tensor, Tensor] = model(
        input_ids=batch["input_ids"],
        attention_mask=batch["attention_mask"],
        position_ids=batch["position_ids"],
        learnt=batch["loss_mask"] > 0,
        hidden=(batch["hidden_from"], batch["hidden_to"]) if "hidden_from" in batch else None,
    )
    return scored


@torch.no_grad()
def score_all(
    model: Any,
    sequences: Sequence[Sequence[int]],
    parts: int,
    most: int | None,
    device: torch.device,
) -> list[Scores]:
    """Scores of given tokens, in at least `parts` passes of at most `most` tokens each."""
    rows = [row_of(ids) for ids in sequences]
    if not rows:
        return []
    found: dict[int, Scores] = {}
    for part in passes_of(rows, min(len(rows), parts), most):
        batch = {name: value.to(device) for name, value in collate(part, 0).items()}
        log_probs_BT, entropies_BT = (it.cpu() for it in score(model, batch))
        for i, row in enumerate(part):
            n = len(row.completion)
            found[id(row)] = Scores(log_probs_BT[i, :n], entropies_BT[i, :n])
    return [found[id(row)] for row in rows]


def add_scoring(model: Any, temperature: float = 1.0) -> None:
    """Let `model(input_ids, …, learnt=(B, W-1))` return scores instead of logits.

    `hidden` are the two tensors of a packed tree (see `rollout.rows.collate`), or None. A call
    without `learnt` behaves as before. Scoring goes through the model's `forward` because DDP,
    FSDP, DeepSpeed and PEFT act there; call `add_scoring` before they wrap the model.
    """
    usual = model.forward

    def forward(
        self: Any,
        *args: Any,
        learnt: Tensor | None = None,
        hidden: tuple[Tensor, Tensor] | None = None,
        **inputs: Any,
    ) -> Any:
        if learnt is None:
            return usual(*args, **inputs)
        given = {name: value for name, value in inputs.items() if value is not None}
        if hidden is not None:
            given["attention_mask"] = tree_masks(
                self.config, *hidden, inputs["position_ids"], self.dtype
            )
        hidden_BWH = self.base_model(*args, use_cache=False, **given).last_hidden_state
        targets_N = inputs["input_ids"][:, 1:][learnt]
        scores = _scores(self, hidden_BWH[:, :-1][learnt], targets_N, temperature)
        # Scattering keeps the model's parameters in the graph even if no token is learnt.
        return tuple(x.new_zeros(learnt.shape).masked_scatter(learnt, x) for x in scores)

    model.forward = MethodType(forward, model)


def _scores(
    model: Any, hidden_NH: Tensor, targets_N: Tensor, temperature: float
) -> tuple[Tensor, Tensor]:
    """Log-probabilities and entropies, (N,) each. If one piece is not enough, the backward pass
    recomputes each piece.
    """
    head, config = model.get_output_embeddings(), model.config.get_text_config()

    def piece(hidden_NH: Tensor, targets_N: Tensor) -> tuple[Tensor, Tensor]:
        logits_NV = _shaped(head(hidden_NH).float(), config) / temperature
        log_probs_NV = logits_NV.log_softmax(-1)
        with torch.no_grad():
            entropies_N = -(log_probs_NV.exp() * log_probs_NV).sum(-1)
        return log_probs_NV.gather(-1, targets_N[:, None]).squeeze(-1), entropies_N

    size = max(1, LOGITS_AT_ONCE // config.vocab_size)
    if len(hidden_NH) <= size:
        return piece(hidden_NH, targets_N)
    pieces = [
        checkpoint(piece, hidden, targets, use_reentrant=False)
        for hidden, targets in zip(
            torch.split(hidden_NH, size), torch.split(targets_N, size), strict=True
        )
    ]
    log_probs, entropies = zip(*pieces, strict=True)
    return torch.cat(log_probs), torch.cat(entropies)


def _shaped(logits_NV: Tensor, config: Any) -> Tensor:
    """Apply the model's change of its head's output: Cohere and Granite scale it, Gemma caps it."""
    if (scale := getattr(config, "logit_scale", None)) is not None:
        logits_NV = logits_NV * scale
    if (divisor := getattr(config, "logits_scaling", None)) is not None:
        logits_NV = logits_NV / divisor
    if (cap := getattr(config, "final_logit_softcapping", None)) is not None:
        logits_NV = cap * torch.tanh(logits_NV / cap)
    return logits_NV
