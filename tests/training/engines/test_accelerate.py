"""The engine's optimizer, adapters and checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState
from transformers import Qwen3NextConfig, Qwen3NextForCausalLM, get_scheduler
from transformers.trainer_pt_utils import get_parameter_names

from ponder.engine.tokenizer import ModelFiles
from ponder.training.engines import accelerate
from ponder.training.engines.accelerate import AccelerateEngine
from ponder.training.engines.copied import rounded_kind
from ponder.training.engines.protocol import CheckpointError, Learnt
from ponder.training.engines.sharding import merged
from ponder.training.method.grpo import GrpoConfig
from ponder.training.method.kernel import LossInputs, PerToken, clipped_objective
from ponder.training.rollout.rows import Row
from ponder.training.run.recipe import RecipeError
from training.policy import TINY, recipe

pytestmark = pytest.mark.usefixtures("one_thread")

ROWS = [
    Row((5, 6, 7), (8, 9, 10, 11), (1.0,) * 4, (True,) * 4),
    Row((5, 6), (12, 13), (-1.0,) * 2, (True,) * 2),
    Row((5, 6), (14, 15, 16), (0.5,) * 3, (True,) * 3),
]
LORA = {"rank": 4, "alpha": 8}


def engine(path: Path, **sections: Any) -> AccelerateEngine:
    own = recipe(path, "grpo", **sections)
    return AccelerateEngine(ModelFiles.find(str(TINY)), own, path / "out")


def objective(rows: LossInputs) -> PerToken:
    return clipped_objective(rows, GrpoConfig())


def update(trained: AccelerateEngine) -> Learnt:
    return trained.update(trained.pack(ROWS, remember=False), objective, denominator=9.0)


def state(trained: AccelerateEngine) -> dict[str, torch.Tensor]:
    return {name: weight.clone() for name, weight in trained.weights()}


def assert_equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_matrices_decay_as_transformers_has_it(tmp_path: Path) -> None:
    made = engine(tmp_path, optimisation={"weight_decay": 0.1})
    norms = [r"bias", r"layernorm", r"rmsnorm", r"(?:^|\.)norm(?:$|\.)", r"_norm(?:$|\.)"]
    named = dict(made.model.named_parameters())
    decaying = get_parameter_names(made.model, [torch.nn.LayerNorm], norms)
    expected = {id(named[name]) for name in decaying if name in named}
    assert 0 < len(expected) < len(named)
    decay, still = made._optimizer.param_groups
    assert {id(p) for p in decay["params"]} == expected
    assert len(decay["params"]) + len(still["params"]) == len(named)
    assert (decay["weight_decay"], still["weight_decay"]) == (0.1, 0.0)


@pytest.mark.parametrize("warmup", [0, 3])
def test_the_rate_rises_and_stays(warmup: int, tmp_path: Path) -> None:
    made = engine(tmp_path, optimisation={"warmup_updates": warmup, "learning_rate": 1e-3})
    plain = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=1e-3)
    schedule = get_scheduler("constant_with_warmup", plain, num_warmup_steps=warmup)
    for number in range(5):
        assert made.updates == number
        assert update(made).learning_rate == pytest.approx(schedule.get_last_lr()[0])
        plain.step()
        schedule.step()


def test_the_gradient_is_clipped_and_told_before(tmp_path: Path) -> None:
    made = engine(tmp_path, optimisation={"clip_norm": 1e-3})
    seen: list[float] = []

    def look(*_: Any) -> None:
        grads = [p.grad for p in made.model.parameters()]
        seen.append(float(torch.cat([grad.flatten() for grad in grads]).norm()))

    made._optimizer.optimizer.register_step_pre_hook(look)
    assert update(made).grad_norm > 1e-3
    assert seen == [pytest.approx(1e-3, rel=1e-3)]


def test_bfloat16_with_checkpointing_finds_about_the_same_gradient(tmp_path: Path) -> None:
    exact = update(engine(tmp_path))
    AcceleratorState._reset_state()
    plan = {"precision": "bfloat16", "gradient_checkpointing": True}
    rounded = engine(tmp_path, optimisation=plan)
    found = update(rounded)
    assert found.grad_norm == pytest.approx(exact.grad_norm, rel=0.1)
    assert found.grad_norm != exact.grad_norm
    assert found.sums["entropy"] == pytest.approx(exact.sums["entropy"], rel=0.1)
    assert all(weight.dtype == torch.float32 for _, weight in rounded.weights())


@pytest.mark.parametrize("lora", [None, LORA])
def test_a_resumed_engine_goes_on_to_the_same_bits(
    lora: dict[str, int] | None, tmp_path: Path
) -> None:
    plan = {"warmup_updates": 4, "weight_decay": 0.1, "learning_rate": 1e-3}
    first = engine(tmp_path, optimisation=plan, lora=lora)
    before = state(first)
    update(first)
    first.save(tmp_path / "kept")
    update(first)
    again = engine(tmp_path, optimisation=plan, lora=lora)
    again.resume(tmp_path / "kept")
    assert again.updates == 1
    update(again)
    assert again.updates == first.updates == 2
    assert_equal(state(first), state(again))
    moved = [name for name, weight in before.items() if not torch.equal(weight, state(first)[name])]
    assert moved if lora is None else moved and all("_proj" in name for name in moved)


def test_a_checkpoint_of_an_earlier_release_is_refused(tmp_path: Path) -> None:
    made = engine(tmp_path)
    made.save(tmp_path / "kept")
    (tmp_path / "kept" / "trainer_state.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"through TRL.*start it anew with another --out"):
        made.resume(tmp_path / "kept")


def test_adapters_are_merged_as_peft_merges_them(tmp_path: Path) -> None:
    made = engine(tmp_path, lora=LORA, optimisation={"learning_rate": 1e-2})
    base = {name: weight.clone() for name, weight in made.weights()}
    update(made)
    ours = state(made)
    assert any(not torch.equal(base[name], ours[name]) for name in base)
    theirs = made._accelerator.unwrap_model(made._model).merge_and_unload()
    tied = theirs.all_tied_weights_keys
    assert_equal(ours, {n: w for n, w in theirs.state_dict().items() if n not in tied})


def test_what_has_no_adapters_is_merged_as_it_is() -> None:
    state = {"model.a.weight": torch.ones(2), "model.b.bias": torch.zeros(1)}
    assert_equal(dict(merged(state, 0.0)), state)


def test_sampling_leaves_the_model_in_training(tmp_path: Path) -> None:
    made = engine(tmp_path)
    with made.sampler() as sample:
        assert not made.model.training
        assert sample([[5, 6]], torch.zeros(1, 3, dtype=torch.double), frozenset({-1}))
    assert made.model.training


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float32])
def test_a_copy_samples_where_the_arithmetic_is_bfloat16_and_caches_both_kinds_alike(
    tmp_path: Path, kind: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A GPU samples large models in bfloat16; what is as fast in float32 is sampled in that."""
    from transformers.cache_utils import DynamicCache

    assert rounded_kind(torch.device("cuda"), 600_000_000) == torch.bfloat16
    assert rounded_kind(torch.device("cuda"), 1_300_000) == torch.float32
    assert rounded_kind(torch.device("cpu"), 600_000_000) == torch.float32
    monkeypatch.setattr(accelerate, "rounded_kind", lambda *_: kind)

    trained = engine(tmp_path, optimisation={"precision": "bfloat16", "learning_rate": 0.1})
    assert trained._apart is not None
    for _ in range(2):
        update(trained)
    with trained.sampler() as sampler:
        assert len(sampler([(5, 6)], torch.full((1, 4), 0.5), frozenset({-1}))[0]) == 4
    model, cache = trained._apart.model, DynamicCache()
    copied, weights = model.state_dict(), state(trained)
    assert all(torch.equal(copied[n], w.to(kind)) for n, w in weights.items())
    exact = all(torch.equal(copied[n].float(), w) for n, w in weights.items())
    assert exact == (kind == torch.float32)
    model(input_ids=torch.tensor([[5, 6, 7]]), past_key_values=cache, use_cache=True)
    kinds = {kept.dtype for layer in cache.layers for kept in (layer.keys, layer.values)}
    assert kinds == {kind}


def test_a_model_whose_layers_take_no_mask_of_ours_cannot_hold_summaries(tmp_path: Path) -> None:
    config = Qwen3NextConfig(
        vocab_size=48, hidden_size=16, num_hidden_layers=4, num_attention_heads=2,
        num_key_value_heads=1, head_dim=8, intermediate_size=16, num_experts=2,
        num_experts_per_tok=1, moe_intermediate_size=8, shared_expert_intermediate_size=8,
        linear_num_key_heads=1, linear_num_value_heads=1,
        linear_key_head_dim=8, linear_value_head_dim=8,
    )  # fmt: skip
    Qwen3NextForCausalLM(config).save_pretrained(tmp_path / "base")
    own = recipe(tmp_path, "brpo")
    with pytest.raises(RecipeError, match=r"with brpo, .* layers of type linear_attention"):
        AccelerateEngine(ModelFiles.find(str(tmp_path / "base")), own, tmp_path / "out")


@pytest.mark.skipif(torch.cuda.is_available(), reason="is about a machine without a GPU")
def test_flex_attention_needs_a_gpu(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="needs a GPU: name sdpa or eager"):
        engine(tmp_path, optimisation={"attention": "flex_attention"})
