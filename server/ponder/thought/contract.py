"""The contract: `ponder.json`, written beside the weights by training, read by serving.

It says how this checkpoint writes a thought and how a thought is closed for it, so that what was
trained is what is served. A checkpoint without one is recognised by its chat template instead
(see `ponder.thought.families`).
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

from ponder.errors import SetupError

FILE_NAME = "ponder.json"
SCHEMA_VERSION = 1


class ContractError(SetupError, ValueError):
    """A contract that cannot be read, or that does not belong to the files beside it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Contract:
    """What a checkpoint promises to the server.

    `close_text` holds the end marker exactly once; `answer_prefix` follows it and is shown as
    part of the answer. `budget_hint` is a template with `{budget}`, one of `trained_budgets`, put
    after the opening marker (soft), beside the cap (hard). `budget_curve` has one entry per task
    and budget: `{"task", "budget", "accuracy", "accuracy_low", "accuracy_high", "tokens"}`.
    `family` names the row of `ponder.thought.families` that holds for what the contract leaves out.
    """

    think_start: str
    think_end: str
    close_text: str
    opened_by: Literal["template", "model"]
    tokenizer_sha256: str
    method: str
    recipe: str
    seed: int
    answer_prefix: str = ""
    recipe_sha256: str | None = None
    base_model: str | None = None
    budget_hint: str | None = None
    trained_budgets: tuple[int, ...] = ()
    budget_curve: tuple[dict[str, Any], ...] = ()
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
        actual = tokenizer_sha256(directory)
        if actual != contract.tokenizer_sha256:
            raise ContractError(
                f"{path} was written for another tokenizer (tokenizer.json has sha256 "
                f"{actual[:12]}…, the contract names {contract.tokenizer_sha256[:12]}…): "
                f"restore the tokenizer the checkpoint was trained with, or export it again"
            )
        return contract

    @classmethod
    def _from_json(cls, raw: Any, path: Path) -> Contract:
        if not isinstance(raw, dict):
            raise ContractError(f"{path} must hold a JSON object")
        version = raw.get("schema_version")
        if version != SCHEMA_VERSION:
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
                f"{path} lacks {', '.join(missing)}: export the checkpoint again, or restore the "
                f"file that was exported"
            )
        for name in ("trained_budgets", "budget_curve"):
            given = raw.get(name, [])
            if not isinstance(given, list):
                raise ContractError(f"{path}: {name} must be a list")
            raw[name] = tuple(given)
        contract = cls(**raw)
        for name in ("think_start", "think_end", "close_text", "answer_prefix"):
            if not isinstance(getattr(contract, name), str):
                raise ContractError(f"{path}: {name} must be a string")
        hint = contract.budget_hint
        if hint is not None and (not isinstance(hint, str) or "{budget}" not in hint):
            raise ContractError(f"{path}: budget_hint must be a string that holds {{budget}}")
        if hint is not None and contract.think_end in hint:
            raise ContractError(f"{path}: budget_hint must not hold the end marker")
        if not all(isinstance(budget, int) and budget > 0 for budget in contract.trained_budgets):
            raise ContractError(f"{path}: trained_budgets must be whole numbers above 0")
        if contract.opened_by not in ("template", "model"):
            raise ContractError(f'{path}: opened_by must be "template" or "model"')
        return contract

    def save(self, directory: Path) -> None:
        """Write `ponder.json` into `directory`."""
        text = json.dumps(asdict(self), indent=2, ensure_ascii=False)
        (directory / FILE_NAME).write_text(text + "\n", encoding="utf-8")


def tokenizer_sha256(directory: Path) -> str:
    """Hash of the tokenizer file, the part of a checkpoint that token ids depend on."""
    path = directory / "tokenizer.json"
    if not path.exists():
        raise ContractError(f"{directory} has a {FILE_NAME} but no tokenizer.json")
    return hashlib.sha256(path.read_bytes()).hexdigest()
