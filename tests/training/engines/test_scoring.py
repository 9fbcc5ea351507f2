"""Scores are the model's own, whatever it does to its logits, in pieces or whole."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from ponder.training.engines import scoring
from ponder.training.engines.scoring import add_scoring, score
from ponder.training.rollout.rows import Chunk, Row, collate, unpack

SHAPE = {
    "vocab_size": 48, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 1, "head_dim": 8, "intermediate_size": 32,
    "max_position_embeddings": 64, "initializer_range": 0.3, "pad_token_id": 0,
}  # fmt: skip
# What each does to the logits of its head.
MODELS: dict[str, dict[str, Any]] = {
    "qwen3": {},
    "llama": {"tie_word_embeddings": True},
    "cohere": {"logit_scale": 0.3},
    "granite": {"logits_scaling": 5.0},
    "gemma2": {"final_logit_softcapping": 2.0},
}
ROWS = [
    Row((1, 2, 3), (4, 5, 6, 7), (0.5,) * 4, (False, True, True, True)),
    Row((8, 9), (10, 11), (-1.0,) * 2, (True, True)),
]


def made(kind: str, **changes: Any) -> Any:
    torch.manual_seed(0)
    config = CONFIG_MAPPING[kind](**{**SHAPE, **MODELS[kind], **changes})
    return AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()


def gradient(model: Any, loss: torch.Tensor) -> torch.Tensor:
    model.zero_grad()
    torch.autograd.backward(loss)
    return torch.cat([p.grad.flatten() for p in model.parameters()])


@pytest.mark.parametrize("temperature", [1.0, 0.6])
@pytest.mark.parametrize("kind", MODELS)
def test_scores_are_the_models_own(kind: str, temperature: float) -> None:
    model, batch = made(kind), collate(ROWS, pad_id=0)
    asked = {n: batch[n] for n in ("input_ids", "attention_mask", "position_ids")}
    logits = model(**asked).logits[:, :-1]
    own = (logits / temperature).log_softmax(-1)
    mask = batch["loss_mask"]
    expected = own.gather(-1, batch["input_ids"][:, 1:, None]).squeeze(-1) * mask
    add_scoring(model, temperature)
    log_probs, entropies = score(model, batch)
    torch.testing.assert_close(log_probs, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(entropies, -(own.exp() * own).sum(-1) * mask, atol=1e-5, rtol=1e-5)
    assert not entropies.requires_grad
    weighted = batch["advantages"]
    torch.testing.assert_close(
        gradient(model, (log_probs * weighted).sum()),
        gradient(model, (expected * weighted).sum()),
        atol=1e-5,
        rtol=1e-4,
    )
    assert torch.equal(model(**asked).logits[:, :-1], logits), "a call for logits is what it was"


GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@pytest.mark.parametrize("window", [None, 3])
@pytest.mark.parametrize(
    ("kernel", "device"),
    [
        ("sdpa", "cpu"),
        ("eager", "cpu"),
        pytest.param("sdpa", "cuda", marks=GPU),
        pytest.param("flex_attention", "cuda", marks=GPU),
    ],
)
@pytest.mark.parametrize("kind", ["qwen3", "gemma2"])
def test_a_summary_sees_its_cut_thought_and_itself_under_every_kernel(
    kind: str, kernel: str, device: str, window: int | None
) -> None:
    size = 16 if kernel == "flex_attention" else 8
    windows = {} if window is None else {"sliding_window": window}
    if window is not None and kind == "qwen3":
        windows |= {"use_sliding_window": True, "max_window_layers": 1}
    model = made(kind, head_dim=size, **windows).to(device)
    model.set_attn_implementation(kernel)
    add_scoring(model)
    row = replace(ROWS[0], chunks=(Chunk(5, (9, 10, 11), 1, 1.0),))
    tree, *paths = ({n: v.to(device) for n, v in collate([it], pad_id=0).items()}
                    for it in (row, *unpack(row)))  # fmt: skip
    log_probs, _ = score(model, tree)
    thought, summary = (score(model, path)[0] for path in paths)
    torch.testing.assert_close(log_probs[:, :6], thought, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(log_probs[:, -2:], summary[:, -2:], atol=1e-5, rtol=1e-5)
    found = gradient(model, log_probs.sum())
    whole = score(model, paths[0])[0].sum() + score(model, paths[1])[0].sum()
    torch.testing.assert_close(found, gradient(model, whole), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("at_once", [1, 2 * 48, 3 * 48])
def test_pieces_change_nothing_and_bound_the_logits(
    at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, batch = made("qwen3"), collate(ROWS, pad_id=0)
    add_scoring(model)
    whole = score(model, batch)
    expected = gradient(model, (whole[0] * batch["advantages"]).sum())
    held: list[int] = []
    model.lm_head.register_forward_hook(lambda *given: held.append(given[2].numel()))
    monkeypatch.setattr(scoring, "LOGITS_AT_ONCE", at_once)
    pieces = score(model, batch)
    for found, one in zip(pieces, whole, strict=True):
        torch.testing.assert_close(found, one, atol=1e-6, rtol=1e-6)
    found = gradient(model, (pieces[0] * batch["advantages"]).sum())
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)
    assert max(held) <= max(at_once, 48), "one token's logits at least"
    assert len(held) > 2 * len(ROWS) - 1, "and they are made again for the gradient"


def test_a_batch_without_anything_to_learn_has_a_gradient_of_zeros() -> None:
    """DDP waits for the gradient of every parameter."""
    model = made("qwen3")
    add_scoring(model)
    log_probs, _ = score(model, collate([Row((1, 2), (3,), (1.0,), (False,))], pad_id=0))
    assert not log_probs.any()
    assert not gradient(model, log_probs.sum()).any()
