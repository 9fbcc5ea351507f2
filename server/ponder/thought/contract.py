"""The contract: `ponder.json`, written beside the weights by training, read by serving.

It says how this checkpoint writes a thought and how the server closes one, so that serving matches
training. A checkpoint without a contract is recognised by its chat template instead (see
`ponder.thought.families`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

from ponder.errors import SetupError
from ponder.thought.curve import Calibration, Curves, Point, read_calibration, read_points

FILE_NAME = "ponder.json"
SCHEMA_VERSION = 1


class ContractError(SetupError, ValueError):
    """A contract that cannot be read, or that does not belong to the files beside it."""


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _marker(value: Any) -> bool:
    return isinstance(value, str) and not value.isspace() and value != ""


def _text_or_none(value: Any) -> bool:
    return isinstance(value, str | None)


def _arguments(value: Any) -> bool:
    return isinstance(value, dict | None)


def _budgets(value: Any) -> bool:
    whole = isinstance(value, list) and all(type(budget) is int for budget in value)
    return whole and all(budget > 0 for budget in value)


def _hint(value: Any) -> bool:
    return value is None or (isinstance(value, str) and "{budget}" in value)


def _pair(value: Any) -> bool:
    return value is None or (isinstance(value, list) and list(map(type, value)) == [str, str])


_KINDS: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    **dict.fromkeys(("think_start", "think_end", "close_text"), (_marker, "a string with text")),
    **dict.fromkeys(("again", "skip_text", "tool_call"), (_text_or_none, "a string")),
    **dict.fromkeys(("budget_argument", "family"), (_text_or_none, "a string")),
    **dict.fromkeys(("base_model", "recipe_sha256"), (_text_or_none, "a string")),
    "tokenizer_sha256": (_text_or_none, "a string"),
    **dict.fromkeys(("answer_prefix", "method", "recipe"), (_text, "a string")),
    "seed": (lambda value: type(value) is int, "a whole number"),
    **dict.fromkeys(("think", "no_think"), (_arguments, "an object of template arguments")),
    "wrapper": (_pair, "a list of two strings"),
    "budget_hint": (_hint, "a string that holds {budget}"),
    "trained_budgets": (_budgets, "a list of whole numbers above 0"),
    "opened_by": (lambda value: value in ("template", "model"), '"template" or "model"'),
}
"""What a field of the file must be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Contract:
    """What a checkpoint promises to the server.

    A contract written by hand needs only `think_start`, `think_end` and `close_text`.
    `close_text` holds the end marker exactly once; `answer_prefix` follows it and is shown as
    part of the answer. `ThoughtFormat` describes `again`, `skip_text`, `wrapper`, `tool_call`,
    `think` and `no_think`. Where `opened_by` is "template", Ponder opens a thought that the
    template leaves to the model. `tokenizer_sha256` is None for any tokenizer. `budget_hint` is a
    text with `{budget}`, which stands for one of `trained_budgets`: it follows the opening marker
    as a soft limit beside the cap. `budget_argument` names the template argument that tells the
    model any number of tokens, where it is not `thinking_budget`. `budget_curve` has a point per
    task and budget, and `calibration` says how they were measured: `ponder calibrate` writes both
    or neither. `family` names the row of `ponder.thought.families` that fills in what the contract
    leaves out.
    """

    think_start: str
    think_end: str
    close_text: str
    opened_by: Literal["template", "model"] = "model"
    tokenizer_sha256: str | None = None
    method: str = "by hand"
    recipe: str = ""
    seed: int = 0
    answer_prefix: str = ""
    again: str | None = None
    skip_text: str | None = None
    wrapper: tuple[str, str] | None = None
    tool_call: str | None = None
    think: dict[str, Any] | None = None
    no_think: dict[str, Any] | None = None
    recipe_sha256: str | None = None
    base_model: str | None = None
    budget_hint: str | None = None
    budget_argument: str | None = None
    trained_budgets: tuple[int, ...] = ()
    budget_curve: tuple[Point, ...] = ()
    calibration: Calibration | None = None
    family: str | None = None
    schema_version: int = SCHEMA_VERSION

    @classmethod
    def load(cls, directory: Path) -> Contract | None:
        """Read the contract of a model directory; None where there is none.

        Raises `ContractError` when the file is malformed, of a newer schema, or when the
        tokenizer beside it is not the one it was written for.
        """
        path = directory / FILE_NAME
        if not path.exists():
            return None
        try:
            raw = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:  # malformed JSON, or bytes that are no UTF-8
            raise ContractError(
                f"{path} is not JSON: {error}; export the checkpoint again"
            ) from error
        contract = cls._from_json(raw, path)
        expected = contract.tokenizer_sha256
        if expected is not None and (actual := tokenizer_sha256(directory)) != expected:
            raise ContractError(
                f"{path} was written for another tokenizer (tokenizer.json has sha256 "
                f"{actual[:12]}…, the contract names {expected[:12]}…): "
                f"restore the tokenizer the checkpoint was trained with, or export it again"
            )
        return contract

    @classmethod
    def _from_json(cls, raw: Any, path: Path) -> Contract:
        if not isinstance(raw, dict):
            raise ContractError(f"{path} must hold a JSON object")
        version = raw.setdefault("schema_version", SCHEMA_VERSION)
        if type(version) is not int or version != SCHEMA_VERSION:
            raise ContractError(
                f"{path} has schema version {version!r}, this Ponder reads {SCHEMA_VERSION}: "
                f"upgrade Ponder or export the checkpoint again"
            )
        unknown = sorted(set(raw) - {f.name for f in fields(cls)})
        if unknown:
            raise ContractError(
                f"{path} has fields that no contract has ({', '.join(unknown)}): upgrade Ponder or "
                f"export the checkpoint again"
            )
        required = {f.name for f in fields(cls) if f.default is MISSING}
        if missing := sorted(required - set(raw)):
            raise ContractError(
                f"{path} lacks {', '.join(missing)}: export the checkpoint again, or write them "
                f"by hand (docs/models.md)"
            )
        for name, (holds, words) in _KINDS.items():
            if name in raw and not holds(raw[name]):
                raise ContractError(f"{path}: {name} must be {words}")
        for name in ("trained_budgets", "wrapper"):
            if raw.get(name) is not None:
                raw[name] = tuple(raw[name])
        raw |= _curve(raw, path)
        contract = cls(**raw)
        if contract.budget_hint is not None and contract.think_end in contract.budget_hint:
            raise ContractError(f"{path}: budget_hint must not hold the end marker")
        return contract

    @property
    def curves(self) -> Curves | None:
        """What each budget gives on each task; None where nobody calibrated the checkpoint."""
        return Curves.of(self.budget_curve, self.calibration) if self.calibration else None

    def save(self, directory: Path) -> None:
        """Replace `ponder.json` in `directory` at once: a full disk leaves the old one.

        Raises `ContractError` where it cannot be written.
        """
        text = json.dumps(asdict(self), indent=2, ensure_ascii=False)
        path, partial = directory / FILE_NAME, directory / f"{FILE_NAME}.partial"
        try:
            partial.write_text(text + "\n", encoding="utf-8")
            partial.replace(path)
        except OSError as error:
            raise ContractError(
                f"{path} cannot be written ({error}): make room, or take a copy of the model that "
                "can be written"
            ) from error


def _curve(raw: dict[str, Any], path: Path) -> dict[str, Any]:
    """`budget_curve` and `calibration` of a contract, checked together."""
    given = raw.get("calibration")
    try:
        points = read_points(raw.get("budget_curve", []))
        calibration = None if given is None else read_calibration(given)
        if bool(points) != (calibration is not None):
            raise ValueError("budget_curve and calibration must be given together")
        if calibration is not None:
            Curves.of(points, calibration)
    except ValueError as error:
        raise ContractError(
            f"{path}: the budget curve is invalid: {error}; run `ponder calibrate` again"
        ) from error
    return {"budget_curve": points, "calibration": calibration}


def tokenizer_sha256(directory: Path) -> str:
    """Hash of the tokenizer file, the part of a checkpoint that token ids depend on."""
    path = directory / "tokenizer.json"
    if not path.exists():
        raise ContractError(f"{directory} has a {FILE_NAME} but no tokenizer.json")
    return hashlib.sha256(path.read_bytes()).hexdigest()
