import json
import re
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from curves import calibration, points
from ponder.thought.contract import FILE_NAME, Contract, ContractError, tokenizer_sha256
from ponder.thought.families import of_contract

SUMS = {"sums": {0: 0.1, 40: 0.5, -1: 0.9}}
CURVE = "the budget curve is invalid: "


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
        budget_curve=points(SUMS),
        calibration=calibration(SUMS),
    )


def rewrite(checkpoint: Path, contract: Contract, **changes: Any) -> None:
    contract.save(checkpoint)
    path = checkpoint / FILE_NAME
    raw = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**raw, **changes}), encoding="utf-8")


def test_what_is_saved_is_what_is_loaded(checkpoint: Path, contract: Contract) -> None:
    contract.save(checkpoint)
    assert Contract.load(checkpoint) == contract
    minimal = replace(
        contract, answer_prefix="", trained_budgets=(), budget_curve=(), calibration=None
    )
    minimal.save(checkpoint)
    assert Contract.load(checkpoint) == minimal


def test_a_failed_save_leaves_the_old_contract(
    checkpoint: Path, contract: Contract, monkeypatch: pytest.MonkeyPatch
) -> None:
    contract.save(checkpoint)

    def full(path: Path, text: str, **_: Any) -> None:
        with path.open("w") as file:
            file.write(text[:9])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(ContractError, match=r"No space left.*make room"):
        replace(contract, seed=8).save(checkpoint)
    assert Contract.load(checkpoint) == contract


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
        ({"schema_version": True}, "schema version True"),
        ({"tokenizer_sha256": 5}, "tokenizer_sha256 must be a string"),
        ({"family": ["Qwen3"]}, "family must be a string"),
        ({"base_model": 5}, "base_model must be a string"),
        ({"recipe": None}, "recipe must be a string"),
        ({"seed": "7"}, "seed must be a whole number"),
        ({"colour": "blue", "age": 3}, "fields that no contract has .age, colour."),
        ({"opened_by": "user"}, 'opened_by must be "template" or "model"'),
        ({"think_end": 5}, "think_end must be a string with text"),
        ({"think_end": ""}, "think_end must be a string with text"),
        ({"think_start": " "}, "think_start must be a string with text"),
        ({"close_text": "\n"}, "close_text must be a string with text"),
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
    ("place", "changes", "message"),
    [
        (0, {"colour": 1}, "entry 0: must be an object of task, budget, accuracy, "),
        (1, {"budget": 40.0}, "entry 1: budget must be a whole number"),
        (1, {"budget": True}, "entry 1: budget must be a whole number"),
        (1, {"budget": -2}, "entry 1: budget -2 must be a number of tokens, or -1"),
        (1, {"accuracy": float("nan")}, "entry 1: accuracy must be a number"),
        (1, {"accuracy_low": 0.6}, "entry 1: accuracy_low, accuracy and accuracy_high"),
        (1, {"accuracy_high": 1.1}, "entry 1: accuracy_low, accuracy and accuracy_high"),
        (1, {"tokens": -1}, "entry 1: tokens must be at least 0"),
        (1, {"n": 0}, "entry 1: tokens must be at least 0, and n at least 1"),
        (0, {"task": ""}, "entry 0: task must be a name"),
        (0, {"budget": 8}, "all tasks .null. must have ascending budgets from 0"),
        (1, {"budget": 0}, "all tasks .null. must have ascending budgets from 0"),
        (2, {"budget": 2048}, "all tasks .null. must have two of its budgets in calibration.auto"),
        (5, {"task": "others"}, "the task 'sums' must have two of its budgets in calibration.auto"),
    ],
)
def test_what_is_wrong_with_a_point_is_named(
    checkpoint: Path, contract: Contract, place: int, changes: dict[str, Any], message: str
) -> None:
    entries = [asdict(point) for point in contract.budget_curve]
    entries[place] |= changes
    rewrite(checkpoint, contract, budget_curve=entries)
    with pytest.raises(ContractError, match=f"{CURVE}{message}.*run `ponder calibrate` again"):
        Contract.load(checkpoint)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"budget_curve": {}}, "budget_curve must be a list"),
        ({"budget_curve": []}, "budget_curve and calibration must be given together"),
        ({"calibration": None}, "budget_curve and calibration must be given together"),
        ({"calibration": []}, "must be an object of epsilon, auto, split"),
        ({"calibration": {"auto": {}}}, "auto must be a list"),
        ({"calibration": {"auto": [{}]}}, "entry 0: must be an object of task, budget, best"),
    ],
)
def test_what_is_wrong_with_a_calibration_is_named(
    checkpoint: Path, contract: Contract, changes: dict[str, Any], message: str
) -> None:
    rewrite(checkpoint, contract, **changes)
    with pytest.raises(ContractError, match=CURVE + message):
        Contract.load(checkpoint)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epsilon": 1.5}, "epsilon must be from 0 to below 1"),
        ({"versions": {"ponder": 1}}, "versions must be an object of strings"),
        ({"auto": []}, "all tasks .null. must have two of its budgets in calibration.auto"),
    ],
)
def test_what_is_wrong_within_a_calibration_is_named(
    checkpoint: Path, contract: Contract, changes: dict[str, Any], message: str
) -> None:
    assert contract.calibration is not None
    changed = {**asdict(contract.calibration), **changes}
    rewrite(checkpoint, contract, calibration=changed)
    with pytest.raises(ContractError, match=CURVE + message):
        Contract.load(checkpoint)


def test_the_curve_in_the_docs_holds(checkpoint: Path, contract: Contract) -> None:
    page = Path(__file__).parents[3] / "docs" / "howto" / "calibrating.md"
    (example,) = re.findall(r"```json\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    rewrite(checkpoint, contract, **json.loads(example))
    loaded = Contract.load(checkpoint)
    assert loaded is not None and loaded.curves is not None
    assert loaded.curves.pooled.auto == 0


def test_the_points_of_a_task_stand_together(checkpoint: Path, contract: Contract) -> None:
    entries = [asdict(point) for point in contract.budget_curve]
    rewrite(checkpoint, contract, budget_curve=[*entries, entries[0]])
    with pytest.raises(
        ContractError, match=r"the points of all tasks \(null\) must stand together"
    ):
        Contract.load(checkpoint)
    rewrite(checkpoint, contract, budget_curve=entries[3:])
    with pytest.raises(ContractError, match=r"all tasks together \(null\) must have points"):
        Contract.load(checkpoint)


def test_every_task_has_one_auto_budget(checkpoint: Path, contract: Contract) -> None:
    assert contract.calibration is not None
    auto = [asdict(each) for each in contract.calibration.auto]
    for wrong in ([*auto, auto[0]], [*auto, {**auto[0], "task": "others"}]):
        rewrite(checkpoint, contract, calibration={**asdict(contract.calibration), "auto": wrong})
        with pytest.raises(ContractError, match="must name each of their tasks once"):
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
