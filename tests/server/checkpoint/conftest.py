"""The bundled model's tokenizer with another chat template."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from ponder.checkpoint.checkpoint import Checkpoint
from ponder.engine.tokenizer import HFTokenizer, ModelFiles
from ponder.server.settings import BUNDLED_MODEL

Load = Callable[..., Checkpoint]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    def load(template: str, model_type: str = "") -> Checkpoint:
        shutil.copytree(BUNDLED_MODEL, tmp_path, dirs_exist_ok=True)
        (tmp_path / "ponder.json").unlink()
        (tmp_path / "chat_template.jinja").write_text(template, encoding="utf-8")
        config = json.loads((tmp_path / "config.json").read_text())
        (tmp_path / "config.json").write_text(json.dumps({**config, "model_type": model_type}))
        files = ModelFiles.find(str(tmp_path))
        return Checkpoint.of(files, HFTokenizer(tmp_path), None)

    return load
