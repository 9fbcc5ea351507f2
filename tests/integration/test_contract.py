"""`ponder contract --check --serve` on the real bundled model."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ponder.server.settings import BUNDLED_MODEL

pytestmark = pytest.mark.engine


def test_twenty_questions_prove_the_bundled_model() -> None:
    command = [Path(sys.executable).with_name("ponder"), "contract", BUNDLED_MODEL]
    done = subprocess.run(
        [*map(str, command), "--check", "--serve"], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "all checks passed" in done.stdout
