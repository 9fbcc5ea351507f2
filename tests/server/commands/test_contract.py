"""`ponder families` and `ponder contract`: what they say, write and prove."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import fields
from pathlib import Path

import pytest

from curves import calibrate
from ponder.checkpoint.checkpoint import Checkpoint
from ponder.cli.main import main
from ponder.engine.tokenizer import ModelFiles
from ponder.server.commands.proof import proved
from ponder.server.settings import BUNDLED_MODEL
from ponder.thought.contract import Contract
from ponder.thought.families import FAMILIES

DOCS = Path(__file__).parents[3] / "docs" / "models.md"
EXAMPLES = re.findall(r"```json\n(.+?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)
OWN = "{% for m in messages %}{{ m.content }}{% endfor %}{% if add_generation_prompt %}"


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """The bundled model without its contract."""
    shutil.copytree(BUNDLED_MODEL, tmp_path, dirs_exist_ok=True)
    (tmp_path / "ponder.json").unlink()
    return tmp_path


def test_the_table_has_every_family(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["families"]) == 0
    said = capsys.readouterr().out
    assert all(f"\n{row.format.name}\n" in f"\n{said}" for row in FAMILIES)
    assert main(["families", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in rows] == [*(row.format.name for row in FAMILIES), "think tags"]


def test_the_table_says_what_the_published_templates_of_a_family_do(
    capsys: pytest.CaptureFixture[str],
) -> None:
    main(["families"])
    told = {
        row.partition("\n")[0]: dict(re.findall(r"^  (.{13})  (.+)$", row, re.MULTILINE))
        for row in re.split(r"^(?=\S)", capsys.readouterr().out, flags=re.MULTILINE)
    }
    seed = {name.strip(): value for name, value in told["Seed-OSS"].items()}
    assert seed == {
        "recognised by": "'<seed:think>'",
        "thought": "'<seed:think>' … '</seed:think>'",
        "close text": r"'\n</seed:think>' (neutral)",
        "tool marker": "'<seed:tool_call>', unless the template shows another",
        "templates": "1 published",
        "opens": "by the model",
        "switched off": "thinking_budget=0",
        "efforts": "none",
        "hint": "thinking_budget",
        "calls": "seed_oss",
    }
    several = told["DeepSeek"]["opens        "]
    assert several == (
        "by the template (6), by the template when switched on (5), by the model (1)"
    )
    assert told["ERNIE"]["templates    "] == "none was tried"
    assert "opens        " not in told["ERNIE"]
    assert main(["families", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["GLM"]["published"]["opens"] == {"by the model": 3, "by the template": 1}


def test_what_was_learnt_is_shown(bare: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["contract", str(bare)]) == 0
    said = capsys.readouterr().out
    assert "yes, as think tags" in said
    assert "'<think>' … '</think>'" in said
    assert "opens the thought" in said
    assert "by nothing: its thought is closed for it" in said


def test_a_switch_that_closes_nothing_is_said(
    bare: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (bare / "chat_template.jinja").write_text(
        f"{OWN}[bot]{{% if enable_thinking is not defined or enable_thinking %}}<think>"
        "{% endif %}{% endif %}"
    )
    assert main(["contract", str(bare), "--check"]) == 0
    said = capsys.readouterr().out
    assert "enable_thinking=False\n" in said
    assert "which does not close its thought: the model is only told not to think" in said


@pytest.mark.parametrize(("last", "auto"), [(0.5, "32"), (0.9, "no limit")])
def test_the_calibrated_budget_is_shown_by_its_name(
    bare: Path, capsys: pytest.CaptureFixture[str], last: float, auto: str
) -> None:
    contract = Contract.load(Path(BUNDLED_MODEL))
    assert contract is not None
    calibrate(contract, {"sums": {0: 0.1, 32: 0.5, -1: last}}).save(bare)
    assert main(["contract", str(bare)]) == 0
    assert f"calibrated  auto is {auto}, on sums" in capsys.readouterr().out


def test_a_first_contract_says_what_was_recognised(
    bare: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["contract", str(bare), "--write", "--check"]) == 0
    assert "all checks passed" in capsys.readouterr().out
    contract = Contract.load(bare)
    assert contract is not None
    assert (contract.family, contract.opened_by, contract.method) == (
        "think tags",
        "template",
        "by hand",
    )
    assert main(["contract", str(bare), "--write"]) == 1
    assert "exists: change it, or move it away first" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("start", "end"),
    [
        ("<thought>", "</thought>"),
        ("[THINK]", "[/THINK]"),
        ("◁think▷", "◁/think▷"),
        ("<|begin_of_thought|>", "<|end_of_thought|>"),
        ("<|start_of_thought|>", "<|end_of_thought|>"),
        ("<|plamo:begin_think:plamo|>", "<|plamo:end_think:plamo|>"),
        ("<scratchpad>", "</scratchpad>"),
    ],
)
def test_a_first_contract_guesses_markers_that_no_row_has(
    bare: Path, capsys: pytest.CaptureFixture[str], start: str, end: str
) -> None:
    (bare / "chat_template.jinja").write_text(f"{OWN}[bot]{start}{{% endif %}}", encoding="utf-8")
    assert main(["contract", str(bare)]) == 0
    assert "it seems so" in capsys.readouterr().out
    assert main(["contract", str(bare), "--write", "--check"]) == 0
    assert f"{start!r} … {end!r}" in capsys.readouterr().out
    contract = Contract.load(bare)
    assert contract is not None
    assert (contract.opened_by, contract.close_text) == ("template", f"\n{end}\n\n")


@pytest.mark.parametrize(
    ("start", "end"),
    [("<|START_OF_THOUGHT|>", "<|END_OF_THOUGHT|>"), ("<BEGIN_THINK>", "<END_THINK>")],
)
def test_a_guess_minds_the_case(bare: Path, start: str, end: str) -> None:
    (bare / "chat_template.jinja").write_text(f"{OWN}[bot]{start}{{% endif %}}", encoding="utf-8")
    assert main(["contract", str(bare), "--write"]) == 0
    contract = Contract.load(bare)
    assert contract is not None
    assert (contract.think_start, contract.think_end) == (start, end)


def test_a_marker_whose_end_nothing_tells_is_said(
    bare: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    written = f"{OWN}[bot]<|content_thinking|>{{% endif %}}"
    (bare / "chat_template.jinja").write_text(written, encoding="utf-8")
    assert main(["contract", str(bare), "--write"]) == 1
    said = capsys.readouterr().err
    assert "<|content_thinking|> in the chat template" in said
    assert "needs think_start, think_end and close_text" in said
    assert Contract.load(bare) is None


def test_nothing_to_begin_with_is_said(bare: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (bare / "chat_template.jinja").write_text(f"{OWN}[bot]{{% endif %}}")
    assert main(["contract", str(bare), "--write"]) == 1
    assert "needs think_start, think_end and close_text" in capsys.readouterr().err
    assert main(["contract", str(bare), "--check"]) == 1
    assert "nothing to prove" in capsys.readouterr().out


def test_a_contract_that_does_not_hold_fails_its_check(
    bare: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (bare / "chat_template.jinja").write_text(
        f"{OWN}{{% if enable_thinking is defined and not enable_thinking %}}<think>"
        "{% else %}</think>{% endif %}{% endif %}"
    )
    contract = {"think_start": "<think>", "think_end": "</think>", "close_text": "</think>"}
    switch = {"think": {"enable_thinking": True}, "no_think": {"enable_thinking": False}}
    (bare / "ponder.json").write_text(json.dumps(contract | switch))
    assert main(["contract", str(bare), "--check"]) == 1
    said = capsys.readouterr().out
    assert "closes the thought although it was switched on" in said
    assert "opens a thought although it was switched off" in said
    assert "2 checks failed" in said


@pytest.mark.parametrize(
    ("contract", "failure"),
    [
        # The dots of a sentence's end and of the marker make other tokens than the marker alone.
        ({"think_end": "..."}, "is read as the thought"),
        ({"think_end": "13"}, r"That is' and the answer '.\nIt is .'"),
        ({"skip_text": "<think>"}, "a prompt with budget 0 does not close the thought"),
        ({"think_start": "</think>"}, "start and end are the same tokens"),
    ],
)
def test_a_thought_that_would_not_be_read_or_closed_fails_the_check(
    bare: Path, capsys: pytest.CaptureFixture[str], contract: dict[str, str], failure: str
) -> None:
    (bare / "chat_template.jinja").write_text(f"{OWN}[bot]{{% endif %}}", encoding="utf-8")
    whole = {"think_start": "<think>", "think_end": "</think>", **contract}
    whole["close_text"] = f"\n{whole['think_end']}\n"
    (bare / "ponder.json").write_text(json.dumps(whole))
    assert main(["contract", str(bare), "--check"]) == 1
    assert failure in capsys.readouterr().out


def test_a_model_that_never_ends_an_answer_fails_the_check(bare: Path) -> None:
    checkpoint = Checkpoint.load(ModelFiles.find(str(bare)))
    checkpoint.tokenizer.eos_token_ids = frozenset()
    assert [*proved(checkpoint)] == [
        "nothing ends an answer: name an eos_token_id in generation_config.json"
    ]


def test_options_that_do_not_agree(bare: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["contract", str(bare), "--serve"]) == 2
    assert "--serve needs --check" in capsys.readouterr().err
    assert main(["contract", str(bare / "nowhere")]) == 1
    assert "neither a directory nor a model" in capsys.readouterr().err


@pytest.mark.parametrize("text", EXAMPLES)
def test_the_contracts_in_the_docs_hold(
    bare: Path, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    (bare / "ponder.json").write_text(text, encoding="utf-8")
    start = json.loads(text)["think_start"]
    (bare / "chat_template.jinja").write_text(
        f"{OWN}[bot]{{% if deliberate is not defined or deliberate %}}{start}{{% endif %}}"
        "{% endif %}",
        encoding="utf-8",
    )
    assert main(["contract", str(bare), "--check"]) == 0, capsys.readouterr().out
    assert "yes, as contract (by hand)" in capsys.readouterr().out


def test_the_docs_have_every_field_of_a_contract() -> None:
    named = set(re.findall(r"`(\w+)`", DOCS.read_text(encoding="utf-8")))
    assert {field.name for field in fields(Contract)} - named == {"schema_version"}
