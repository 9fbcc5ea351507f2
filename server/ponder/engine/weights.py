"""Checks that a model directory has all its weights, in milliseconds, before they load.

safetensors (https://github.com/huggingface/safetensors): eight bytes with the length of a JSON
header, the header, and the tensors, whose end the header gives.
"""

from __future__ import annotations

import json
from pathlib import Path

from ponder.engine.protocol import EngineSetupError

_INDEX = "model.safetensors.index.json"
_KINDS = ("*.safetensors", "*.bin", "*.pt", "*.pth", "*.gguf")
_REMEDY = "download or export the model again"


class WeightsError(EngineSetupError):
    """Files of weights are missing or damaged; the message names them."""


def check_weights(directory: Path) -> None:
    """Raises `WeightsError`. Files in other formats than safetensors need only exist."""
    if not any(file for kind in _KINDS for file in directory.glob(kind)):
        raise WeightsError(f"{directory} has no weights (*.safetensors): {_REMEDY}")
    index = directory / _INDEX
    if index.exists():
        named = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        if missing := sorted(name for name in named if not (directory / name).exists()):
            raise WeightsError(f"{directory} lacks {', '.join(missing[:3])}: {_REMEDY}")
    for file in sorted(directory.glob("*.safetensors")):
        _check(file)


def _check(file: Path) -> None:
    size = file.stat().st_size
    with file.open("rb") as content:
        length = int.from_bytes(content.read(8), "little")
        try:
            header = json.loads(content.read(length)) if length < size else None
        except ValueError:
            header = None
    if not isinstance(header, dict):
        raise WeightsError(f"{file} is no file of weights, or is damaged: {_REMEDY}")
    tensors = [entry for name, entry in header.items() if name != "__metadata__"]
    whole = 8 + length + max((entry["data_offsets"][1] for entry in tensors), default=0)
    if size != whole:
        raise WeightsError(f"{file} has {size} bytes of {whole}: {_REMEDY}")
