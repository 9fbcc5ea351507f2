"""The batch sampler: what it draws is the model's, and a row's own."""

from __future__ import annotations

import math
from collections import Counter
from random import Random
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from ponder.training.rollout import cache, decoding
from ponder.training.rollout.cache import grouped_attention
from ponder.training.rollout.decoding import Decoding, pick
from ponder.training.rollout.drive import uniforms
from ponder.training.rollout.masks import SLOT_KERNELS, refusal
from ponder.training.rollout.sampler import batches, row_bytes, sample

STOP = frozenset({31})


def prompts(n: int) -> list[list[int]]:
    rng = Random(0)
    return [[rng.randrange(30) for _ in range(rng.randint(1, 9))] for _ in range(n)]


def test_a_row_is_the_same_in_any_batch(model: Any) -> None:
    asked = [p for p in prompts(5) for _ in range(3)]
    noise = torch.cat([uniforms(f"prompt/{i}", 3, 40) for i in range(5)])
    together = sample(model, asked, noise, stop_ids=STOP)
    alone = [sample(model, [p], noise[i : i + 1], stop_ids=STOP)[0] for i, p in enumerate(asked)]
    assert together == alone


def test_rows_end_at_the_stop_token_or_the_limit(model: Any) -> None:
    rows = sample(model, prompts(40), uniforms("x", 40, 60), stop_ids=STOP)
    ended = [row for row in rows if row[-1] in STOP]
    assert 0 < len(ended) < len(rows)  # both kinds were seen
    assert all(len(row) == 60 for row in rows if row[-1] not in STOP)
    assert not any(STOP & set(row[:-1]) for row in rows)


def test_the_choice_is_what_a_whole_forward_pass_gives(model: Any) -> None:
    """Prefix sharing, compaction and the cache change nothing: every token is re-derived."""
    asked = prompts(6)
    noise = uniforms("y", 6, 30)
    for prompt, row, numbers in zip(
        asked, sample(model, asked, noise, stop_ids=STOP), noise, strict=True
    ):
        logits = model(input_ids=torch.tensor([prompt + row])).logits[0, len(prompt) - 1 : -1]
        assert pick(logits, numbers[: len(row)], 1.0).tolist() == row


def test_tokens_come_as_often_as_their_probability() -> None:
    logits = torch.log(torch.tensor([0.5, 0.3, 0.15, 0.05]))
    noise = (torch.arange(2000, dtype=torch.float64) + 0.5) / 2000
    drawn = Counter(pick(logits.repeat(2000, 1), noise, 1.0).tolist())
    assert [drawn[i] for i in range(4)] == [1000, 600, 300, 100]


def test_temperature_sharpens() -> None:
    logits = torch.log(torch.tensor([[0.6, 0.4]]))
    assert pick(logits, torch.tensor([0.65]), 1.0).item() == 1
    assert pick(logits, torch.tensor([0.65]), 0.5).item() == 0  # 0.6² / (0.6² + 0.4²) = 0.69


def test_uniforms_depend_on_key_and_row_alone() -> None:
    many = uniforms("k", 4, 10)
    assert torch.equal(uniforms("k", 2, 5), many[:2, :5])
    assert not torch.equal(uniforms("l", 4, 10), many)
    assert len(set(many.flatten().tolist())) == 40


# Small models whose layers see everything, a window, or both by turns.
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "qwen3": {},
    "mistral": {"sliding_window": 7},
    "qwen2": {"use_sliding_window": True, "sliding_window": 7, "max_window_layers": 1},
    "gemma2": {"sliding_window": 7},
    "gemma3_text": {"sliding_window": 7, "layer_types": ["sliding_attention", "full_attention"]},
    "olmo3": {"sliding_window": 7, "layer_types": ["sliding_attention", "full_attention"]},
    "gpt_oss": {"sliding_window": 7, "num_local_experts": 2, "num_experts_per_tok": 1},
}


# Sinks, as in gpt-oss, are for eager attention alone.
KERNELS = [(kind, "eager") for kind in ARCHITECTURES]
KERNELS += [(kind, "sdpa") for kind in ARCHITECTURES if kind != "gpt_oss"]


@pytest.mark.parametrize(("kind", "kernel"), KERNELS)
def test_blocks_of_tokens_that_keep_their_places_change_no_row(
    kind: str, kernel: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A GPU samples so: rows that have ended run on, and what they write is dropped."""
    torch.manual_seed(0)
    shape = {
        "vocab_size": 32, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "head_dim": 4, "intermediate_size": 32, "pad_token_id": 0,
        "max_position_embeddings": 128, "initializer_range": 0.3,
    }  # fmt: skip
    config = CONFIG_MAPPING[kind](**shape, **ARCHITECTURES[kind])
    model = AutoModelForCausalLM.from_config(config, attn_implementation=kernel).eval()
    asked, noise = prompts(24), uniforms("z", 24, 50)
    rows = sample(model, asked, noise, stop_ids=STOP)
    assert len({len(row) for row in rows}) > 1 and min(map(len, rows)) < 7
    assert refusal(config, SLOT_KERNELS) is None
    for module in (cache, decoding):
        monkeypatch.setattr(module, "BLOCK", 7)
    with torch.no_grad(), grouped_attention(model):
        assert Decoding(model, asked, noise, STOP, 1.0, slots=True).finish() == rows


def on_gpu(model: Any) -> Any:
    there = type(model)(model.config).to("cuda").eval()
    there.load_state_dict(model.state_dict())
    return there


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_replays_what_a_cpu_samples(model: Any) -> None:
    asked, noise = prompts(24), uniforms("z", 24, 150)
    there = on_gpu(model)
    expected = sample(model, asked, noise, stop_ids=STOP)
    found = sample(there, asked, noise, stop_ids=STOP)
    same = sum(a == b for a, b in zip(found, expected, strict=True))
    assert same >= 22, "a number may fall between two shares that differ by rounding"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_model_that_waits_for_its_gpu_samples_without_a_graph(
    model: Any, caplog: pytest.LogCaptureFixture
) -> None:
    waiting = on_gpu(model)

    def wait(module: Any, given: Any, found: Any) -> None:
        assert math.isfinite(found.logits.sum().item())

    waiting.register_forward_hook(wait)
    asked, noise = prompts(24), uniforms("z", 24, 150)
    found = sample(waiting, asked, noise, stop_ids=STOP)
    again = sample(waiting, asked, noise, stop_ids=STOP)
    assert found == again == sample(on_gpu(model), asked, noise, stop_ids=STOP)
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 1 and "cannot be captured as a CUDA graph" in said[0]


@pytest.mark.parametrize(
    ("config", "cause"),
    [
        (CONFIG_MAPPING["qwen3_next"](), "layers of type linear_attention"),
        (CONFIG_MAPPING["recurrent_gemma"](), "layers of type recurrent"),
        (CONFIG_MAPPING["rwkv"](), "lack of attention heads"),
        (CONFIG_MAPPING["llama"](attn_implementation="flash_attention_2"), "flash_attention_2"),
    ],
)
def test_masks_that_a_model_cannot_take_are_refused_by_cause(config: Any, cause: str) -> None:
    assert cause in str(refusal(config, SLOT_KERNELS))


@settings(max_examples=40, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 300), min_size=1, max_size=60),
    longest=st.integers(1, 200),
    room=st.integers(1, 20_000),
)
def test_batches_hold_every_row_once_within_their_room(
    lengths: list[int], longest: int, room: int
) -> None:
    asked = [[i] * length for i, length in enumerate(lengths)]
    made = batches(asked, longest, lambda tokens: 3.0 * tokens + 5, room)
    assert sorted(row for batch in made for row in batch) == list(range(len(asked)))
    for batch in made:
        widest = max(lengths[row] for row in batch) + longest
        assert len(batch) == 1 or len(batch) * (3 * widest + 5) <= room


@settings(max_examples=15, deadline=None)
@given(rows=st.floats(0, 20), seed=st.integers(0, 1000))
def test_samples_are_the_same_in_any_batches(rows: float, seed: int, model: Any) -> None:
    asked = [prompt for prompt in prompts(6) for _ in range(1 + seed % 4)]
    noise = uniforms(f"room/{seed}", len(asked), 20)
    room = rows * row_bytes(model)(9 + 20)
    assert len(batches(asked, 20, row_bytes(model), room)) > 1 or rows > 5
    assert sample(model, asked, noise, stop_ids=STOP, room=room) == sample(
        model, asked, noise, stop_ids=STOP
    )
