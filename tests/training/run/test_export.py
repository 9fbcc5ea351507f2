import os
from pathlib import Path

import torch

from ponder.thought.contract import Contract
from ponder.training.coldstart.sft import SftResult
from ponder.training.run.export import cold_start_contract, export
from ponder.training.run.recipe import SftRecipe
from ponder.training.run.recipe_hash import recipe_sha256


def test_an_export_loads_as_it_was_trained(
    recipe: SftRecipe, trained: SftResult, tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    written = export(tmp_path, trained.model, trained.tokenizer, cold_start_contract(recipe))
    assert trained.model.dtype == torch.float32

    model = AutoModelForCausalLM.from_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert model.dtype == torch.bfloat16
    for name, value in trained.model.state_dict().items():
        assert torch.equal(model.state_dict()[name], value.to(torch.bfloat16)), name
    assert tokenizer.get_vocab() == trained.tokenizer.get_vocab()
    assert tokenizer.chat_template == trained.tokenizer.chat_template
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert model.generation_config.eos_token_id == model.config.eos_token_id == end

    contract = Contract.load(tmp_path)
    assert contract == written
    assert contract is not None
    assert contract.close_text == "\n</think>\n\n"
    assert contract.trained_budgets == (40, 80, 160, 200)
    assert (contract.recipe, contract.seed) == ("test", 5)
    assert contract.recipe_sha256 == recipe_sha256(recipe)


def test_what_a_base_recommends_is_exported_as_it_is(
    recipe: SftRecipe, trained: SftResult, tmp_path: Path
) -> None:
    told = '{"temperature": 0.6, "do_sample": true, "eos_token_id": [1, 2]}'
    (base := tmp_path / "base").mkdir()
    (base / "generation_config.json").write_text(told)
    out, contract = tmp_path / "out", cold_start_contract(recipe)
    export(out, trained.model, trained.tokenizer, contract, base=base)
    assert (out / "generation_config.json").read_text() == told


def test_another_user_may_read_what_was_exported(
    recipe: SftRecipe, trained: SftResult, tmp_path: Path
) -> None:
    usual = os.umask(0o022)
    try:
        export(tmp_path, trained.model, trained.tokenizer, cold_start_contract(recipe))
    finally:
        os.umask(usual)
    modes = {path.name: oct(path.stat().st_mode & 0o777) for path in tmp_path.iterdir()}
    assert "model.safetensors" in modes
    assert set(modes.values()) == {"0o644"}, modes
