import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ponder.thought.contract import FILE_NAME, Contract, ContractError, tokenizer_sha256
from ponder.thought.families import of_contract


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    (tmp_path / "tokenizer.json").write_text('{"model": {}}', encoding="utf-8")
    return tmp_path


@pytest.fixture
def contract(checkpoint: Path) -> Contract:
    return Contract(
        think_start="<think>",
        think_end="</think>",
        close_text="\nZeit ist um…\n</think>\n\n",
        opened_by="template",
        tokenizer_sha256=tokenizer_sha256(checkpoint),
        method="sft",
        recipe="tiny-sft",
        seed=7,
        answer_prefix="Answer: ",
        trained_budgets=(40, 80),
        budget_curve=({"task": "sums", "budget": 40, "accuracy": 0.5},),
    )


def rewrite(checkpoint: Path, contract: Contract, **changes: Any) -> None:
    contract.save(checkpoint)
    path = checkpoint / FILE_NAME
    raw = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**raw, **changes}), encoding="utf-8")


def test_what_is_saved_is_what_is_loaded(checkpoint: Path, contract: Contract) -> None:
    contract.save(checkpoint)
    assert Contract.load(checkpoint) == contract
    minimal = replace(contract, answer_prefix="", trained_budgets=(), budget_curve=())
    minimal.save(checkpoint)
    assert Contract.load(checkpoint) == minimal


def test_a_directory_without_a_contract_has_none(tmp_path: Path) -> None:
    assert Contract.load(tmp_path) is None


def test_another_tokenizer_is_refused(checkpoint: Path, contract: Contract) -> None:
    contract.save(checkpoint)
    (checkpoint / "tokenizer.json").write_text("{}", encoding="utf-8")
    with pytest.raises(ContractError, match="another tokenizer"):
        Contract.load(checkpoint)


def test_a_missing_tokenizer_is_refused(checkpoint: Path, contract: Contract) -> None:
    contract.save(checkpoint)
    (checkpoint / "tokenizer.json").unlink()
    with pytest.raises(ContractError, match=r"no tokenizer\.json"):
        Contract.load(checkpoint)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema_version": 2}, "schema version 2, this Ponder reads 1: upgrade"),
        ({"schema_version": None}, "schema version None"),
        ({"colour": "blue", "age": 3}, "fields that no contract has .age, colour."),
        ({"opened_by": "user"}, 'opened_by must be "template" or "model"'),
        ({"think_end": 5}, "think_end must be a string"),
        ({"trained_budgets": 5}, "trained_budgets must be a list of whole numbers above 0"),
        ({"trained_budgets": [0]}, "trained_budgets must be a list of whole numbers above 0"),
        ({"budget_hint": "Be quick."}, "budget_hint must be a string that holds {budget}"),
        ({"budget_hint": "{budget}</think>"}, "budget_hint must not hold the end marker"),
    ],
)
def test_what_is_wrong_is_named(
    checkpoint: Path, contract: Contract, changes: dict[str, Any], message: str
) -> None:
    rewrite(checkpoint, contract, **changes)
    with pytest.raises(ContractError, match=message):
        Contract.load(checkpoint)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "is not JSON"),
        (b"\xff{}", "is not JSON"),
        (b"[]", "must hold a JSON object"),
        (
            b'{"schema_version": 1}',
            "lacks close_text, think_end, think_start: export",
        ),
    ],
)
def test_a_malformed_file_is_refused(checkpoint: Path, content: bytes, message: str) -> None:
    (checkpoint / FILE_NAME).write_bytes(content)
    with pytest.raises(ContractError, match=message):
        Contract.load(checkpoint)


def test_the_format_of_a_contract(contract: Contract) -> None:
    form = of_contract(contract)
    assert form.close_text == contract.close_text
    assert (form.start, form.end, form.source) == ("<think>", "</think>", "ponder.json")
    assert (form.answer_prefix, form.name) == ("Answer: ", "contract (sft)")
