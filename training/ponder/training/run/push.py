"""Uploads a trained checkpoint to the Hugging Face hub: `ponder train … --push OWNER/NAME`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .recipe import RecipeError

# Only servable files are uploaded: checkpoints, the best weights and logs stay here.
_NOT = ["checkpoints/*", "best/*", "staging/*", "runs/*", "wandb/*", "samples.jsonl"]


def check_push(name: str) -> None:
    """Raise `RecipeError` for a bad name or a missing login, before training begins."""
    from huggingface_hub import get_token
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils._validators import validate_repo_id

    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise RecipeError(f"--push: {error}") from error
    if get_token() is None:
        raise RecipeError("--push: nobody is logged in: run `hf auth login`, or set HF_TOKEN")


def push(directory: Path, name: str, api: Any = None) -> str:
    """Upload the servable files, privately unless the repository exists; returns its address.

    Raises `OSError` where the hub is out of reach or refuses.
    """
    if api is None:
        from huggingface_hub import HfApi

        api = HfApi()
    made = api.create_repo(name, private=True, exist_ok=True)
    api.upload_folder(
        repo_id=name,
        folder_path=str(directory),
        ignore_patterns=_NOT,
        commit_message="A checkpoint trained by Ponder",
    )
    return str(made)
