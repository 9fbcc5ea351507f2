"""The checkpoint from which a run starts, and its form of a thought."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any

from ponder.checkpoint.checkpoint import Checkpoint
from ponder.engine.tokenizer import ModelFiles, TokenizerError
from ponder.thought.contract import Contract, ContractError
from ponder.thought.errors import InvalidCloseText

from .rollout.plans import Reader
from .run.recipe import PolicyRecipe, RecipeError
from .run.recipe_hash import recipe_sha256


@dataclass(frozen=True)
class Base:
    """A checkpoint, and the contract that its training will export.

    The recipe's close text and answer prefix replace those of the base. Rollouts open a thought
    that the template leaves to the model, whatever the base's contract says, and so do servers of
    the export.
    """

    checkpoint: Checkpoint
    contract: Contract

    @classmethod
    def find(cls, recipe: PolicyRecipe) -> Base:
        """Find the recipe's base without reading weights; `RecipeError` names the faulty field."""
        try:
            files = ModelFiles.find(recipe.base)
        except FileNotFoundError as error:
            raise RecipeError(f"base: {error}; --base names another checkpoint") from error
        try:
            found = Checkpoint.load(files)
            if (contract := found.contract) is None:
                contract = contract_of_family(recipe.base, found)
            contract = replace(contract, opened_by="template")
            if recipe.close_text is not None:
                contract = replace(contract, close_text=recipe.close_text)
            if recipe.answer_prefix is not None:
                contract = replace(contract, answer_prefix=recipe.answer_prefix)
            checkpoint = Checkpoint.of(files, found.tokenizer, contract)
        except (ContractError, TokenizerError) as error:
            raise RecipeError(f"base: {error}") from error
        except InvalidCloseText as error:
            raise RecipeError(f"close_text: {error}") from error
        return cls(checkpoint, _trained(contract, recipe, files))

    def reader(self, recipe: PolicyRecipe) -> Reader:
        """A reader of the recipe's prompts. Raises `RecipeError` if the base does not think."""
        try:
            return Reader(self.checkpoint, recipe.system_prompt, recipe.instruction)
        except ValueError as error:
            raise RecipeError(f"base: {error}") from error

    @property
    def files(self) -> ModelFiles:
        return self.checkpoint.files

    @property
    def hint(self) -> str | None:
        """The text of a budget hint that training exports, or else what the base itself has."""
        own = self.checkpoint.contract
        return self.contract.budget_hint or (own.budget_hint if own is not None else None)

    def on_meta(self) -> Any:
        """The model without weights."""
        import torch
        from transformers import AutoConfig, AutoModelForCausalLM

        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(
                AutoConfig.from_pretrained(self.files.directory)
            )

    @property
    def config(self) -> dict[str, Any]:
        """The model's config.json."""
        raw: dict[str, Any] = json.loads(
            (self.files.directory / "config.json").read_text(encoding="utf-8")
        )
        return raw


def contract_of_family(name: str, checkpoint: Checkpoint) -> Contract:
    """A contract from the table of families, for a checkpoint without one."""
    form = checkpoint.form
    if form is None:
        raise RecipeError(
            f"base: {name} has no ponder.json, and its chat template is of no known family: "
            f"`ponder contract {name} --write` begins one"
        )
    return Contract(
        think_start=form.start,
        think_end=form.end,
        close_text=form.close_text,
        answer_prefix=form.answer_prefix,
        opened_by="template",
        family=form.name,
        tokenizer_sha256="",
        method="",
        recipe="",
        seed=0,
    )


def _trained(contract: Contract, recipe: PolicyRecipe, files: ModelFiles) -> Contract:
    """The base's contract with this recipe's method, budgets and hint, and not calibrated."""
    method = recipe.method
    for marker in (contract.think_start, contract.think_end):
        if any(marker in hint for hint in method.hints):
            raise RecipeError(f"method.hint: must not hold {marker}, a marker of the thought")
    hint, budgets = method.promises(contract.budget_hint, contract.trained_budgets)
    return replace(
        contract,
        method=method.method,
        recipe=recipe.name,
        recipe_sha256=recipe_sha256(recipe),
        seed=recipe.seed,
        base_model=files.label,
        budget_hint=hint,
        trained_budgets=budgets,
        budget_curve=(),
        calibration=None,
    )
