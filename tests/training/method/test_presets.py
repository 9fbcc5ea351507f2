from typing import Any, get_args

import pytest
import torch
from pydantic import TypeAdapter, ValidationError

from ponder.training.method.brpo import BrpoConfig
from ponder.training.method.hbpo import HbpoConfig
from ponder.training.method.kernel import LossInputs
from ponder.training.method.presets import PRESETS, Method, MethodConfig
from training.method.scored import after, scored

CONFIG: TypeAdapter[Any] = TypeAdapter(MethodConfig)
CONFIGS = get_args(get_args(MethodConfig)[0])


def test_the_table_has_every_method_by_its_own_name() -> None:
    assert [preset.settings().method for preset in PRESETS.values()] == list(PRESETS)
    assert sorted(PRESETS) == sorted(config().method for config in CONFIGS)


@pytest.mark.parametrize("name", PRESETS)
def test_defaults_hold_and_survive_a_round_trip(name: str) -> None:
    config = CONFIG.validate_python({"method": name})
    assert config.method == name
    assert CONFIG.validate_json(config.model_dump_json()) == config
    assert config.longest > 0 and config.attempts >= 1
    assert len(set(config.hints)) == (4 if name == "hbpo" else 0)


PUBLISHED: dict[str, dict[str, Any]] = {
    "grpo": {"group_size": 16, "clip_low": 0.2, "clip_high": 0.28, "dual_clip": 3},
    "dapo": {
        "clip_low": 0.2,
        "clip_high": 0.28,
        "dual_clip": 10,
        "longest": 20480,
        "dynamic_sampling": True,
        "generation_batches": 10,
        "overlong_buffer": 4096,
        "overlong_factor": 1,
    },
    "hbpo": {
        "group_size": 16,
        "clip_low": 0.2,
        "clip_high": 0.28,
        "dual_clip": 3,
        "longest": 4096,
        "budgets": (512, 1024, 2048, 2560),
        "subgroup_sizes": (4, 4, 4, 4),
        "alpha": 1 / 4096,
        "beta": 4,
        "hint": "I will answer the question within {budget} tokens",
        "loss_on_hint": True,
        "count_hint": True,
        "format_penalty": 0,
        "skip_all_wrong": False,
    },
    "length-penalty": {"group_size": 16, "longest": 4096, "beta": 4, "dual_clip": 3},
    "brpo": {
        "group_size": 8,
        "clip_low": 0.2,
        "clip_high": 0.2,
        "dual_clip": None,
        "budgets": (2000, 4000, 6000, 8000),
        "decay": 0.5,
        "variance_reduction": "full",
        "summaries": 4,
        "summary_tokens": 128,
        "summary_advantage": "decoupled",
    },
    "htpo": {
        "group_size": 16,
        "clip_low": 0.2,
        "clip_high": 0.28,
        "dual_clip": 10,
        "longest": 20480,
        "sign": "figure",
        "hard_below": 0.6,
        "high_entropy_share": 0.2,
        "low_mask_share": 0.006,
        "high_mask_share": 0.02,
        "ratio_cap": 10,
        "overlong_buffer": 4096,
    },
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_defaults_are_the_published_settings(name: str) -> None:
    config = CONFIG.validate_python({"method": name})
    assert {field: getattr(config, field) for field in PUBLISHED[name]} == PUBLISHED[name]


@pytest.mark.parametrize("config", CONFIGS)
def test_every_field_is_described(config: Any) -> None:
    fields = config.model_fields.items()
    assert [n for n, field in fields if n != "method" and not field.description] == []


@pytest.mark.parametrize("config", CONFIGS)
def test_every_number_has_bounds(config: Any) -> None:
    schema = config.model_json_schema()
    for name, field in schema["properties"].items():
        for kind in (field, field.get("items", {}), *field.get("anyOf", ())):
            if kind.get("type") in ("integer", "number"):
                assert {"minimum", "exclusiveMinimum"} & set(kind), name
                low_alone = name in ("subgroup_sizes", "unhinted")
                assert low_alone or {"maximum", "exclusiveMaximum"} & set(kind), name


@pytest.mark.parametrize(
    ("raw", "named"),
    [
        ({"method": "ppo"}, "'grpo', 'dapo', 'hbpo', 'length-penalty', 'brpo', 'htpo'"),
        ({"method": "grpo", "budget": 3}, "grpo.budget"),
        ({"method": "grpo", "group_size": 1}, "grpo.group_size"),
        ({"method": "grpo", "clip_low": 1.0}, "grpo.clip_low"),
        ({"method": "grpo", "dual_clip": 1.1}, "dual_clip must be above 1 .* or set it to null"),
        ({"method": "dapo", "longest": 100, "overlong_buffer": 200}, "overlong_buffer .* lower it"),
        ({"method": "dapo", "generation_batches": 0}, "dapo.generation_batches"),
        ({"method": "hbpo", "longest": 0}, "hbpo.longest"),
        ({"method": "hbpo", "alpha": float("nan")}, "hbpo.alpha"),
        ({"method": "hbpo", "budgets": [8, 4]}, "hbpo.budgets[^']*must rise strictly: sort"),
        ({"method": "hbpo", "budgets": [4, 4]}, "hbpo.budgets[^']*must rise strictly: sort"),
        ({"method": "hbpo", "budgets": [512, 4096]}, "budgets must stay below longest = 4096"),
        ({"method": "hbpo", "budgets": [1, 2, 3]}, "subgroup_sizes .* group_size = 16"),
        ({"method": "hbpo", "budgets": [1, 2], "subgroup_sizes": [16]}, "subgroup_sizes .* 2 bud"),
        ({"method": "hbpo", "group_size": 2}, "subgroup_sizes .* group_size = 2"),
        ({"method": "hbpo", "hint": "think briefly"}, "hint must hold {budget}"),
        ({"method": "hbpo", "hint": "{budget} {0}"}, "hint must hold {budget}"),
        ({"method": "hbpo", "format_penalty": 1}, "hbpo.format_penalty"),
        ({"method": "brpo", "budgets": []}, "brpo.budgets"),
        ({"method": "brpo", "budgets": [5, 3]}, "brpo.budgets[^']*must rise strictly: sort"),
        ({"method": "brpo", "summaries": 1}, "summaries must be at least 2"),
        ({"method": "brpo", "prior": "even"}, "brpo.prior"),
        ({"method": "brpo", "decay": 0}, "brpo.decay"),
        ({"method": "htpo", "sign": "plus"}, "htpo.sign"),
        ({"method": "htpo", "hard_below": 1.5}, "htpo.hard_below"),
        ({"method": "htpo", "ratio_cap": 0.5}, "htpo.ratio_cap"),
    ],
)
def test_errors_name_the_field_and_the_remedy(raw: dict[str, Any], named: str) -> None:
    with pytest.raises(ValidationError, match=r"(?s)" + named):
        CONFIG.validate_python(raw)


def test_the_six_budgets_of_the_ablation() -> None:
    config = HbpoConfig(
        budgets=(512, 1024, 1536, 2048, 2560, 3072), subgroup_sizes=(2, 2, 4, 4, 2, 2)
    )
    assert [config.row_budgets.count(b) for b in config.budgets] == [2, 2, 4, 4, 2, 2]
    assert list(config.row_budgets) == sorted(config.row_budgets)
    one = HbpoConfig(budgets=(1536,))
    assert one.row_budgets == (1536,) * 16
    assert one.hint.format(budget=1536) == "I will answer the question within 1536 tokens"


def test_configs_are_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        BrpoConfig().decay = 0.1


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_step_of_every_method(name: str) -> None:
    """From columns to a finite gradient, by the table alone, as a trainer walks it."""
    config = CONFIG.validate_python({"method": name})
    method = Method.of(config)
    generator = torch.Generator().manual_seed(1)
    rows, tokens = 2 * config.group_size, 12
    length_B = torch.randint(1, tokens + 1, (rows,), generator=generator)
    correct_B = torch.rand(rows, generator=generator) < 0.5
    budgets = config.row_budgets * 2 if name == "hbpo" else (0,) * rows
    shape = (rows, len(config.budgets), config.summaries) if name == "brpo" else (rows,)
    seen = scored(
        [config.group_size] * 2,
        correct=correct_B,
        formatted=torch.ones_like(correct_B),
        length=length_B,
        budget=budgets,
        summary_correct=torch.rand(shape, generator=generator) < 0.5,
        cut=torch.arange(shape[-2] if name == "brpo" else 1).repeat(rows, 1),
        group_accuracy=correct_B.view(2, -1).float().mean(1).repeat_interleave(config.group_size),
    )
    found = after(config, seen)
    assert found.sizes == seen.sizes
    assert ("branch_advantage" in found.columns) == (name == "brpo")
    old_BT = -torch.rand(rows, tokens, generator=generator)
    log_probs_BT = (old_BT + torch.randn(rows, tokens, generator=generator)).requires_grad_()
    advantages_B1 = found["advantage"].reshape(rows, -1)[:, :1]
    inputs = LossInputs(
        log_probs_BT,
        old_BT,
        advantages_B1.expand(rows, tokens),
        torch.arange(tokens) < length_B[:, None],
        {**found.columns, "entropy": torch.rand(rows, tokens, generator=generator)},
    )
    method.objective(inputs).per_token_BT.sum().backward()
    assert log_probs_BT.grad is not None
    assert log_probs_BT.grad.isfinite().all()
    assert log_probs_BT.grad.abs().sum() > 0
