from pathlib import Path

import pytest
from pydantic import ValidationError

from ponder.training.commands.evaluate import Options, run


def test_an_unknown_task_lists_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(Options(model="m", tasks=["sums"])) == 2
    assert "equation" in capsys.readouterr().err


def test_budgets_below_minus_one_are_refused() -> None:
    with pytest.raises(ValidationError, match="budgets"):
        Options(model="m", budgets=[-2])


def test_a_directory_without_a_model_is_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(Options(model=str(tmp_path), n=5)) == 1
    assert "config.json" in capsys.readouterr().err


def test_too_many_problems_are_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(Options(model="m", tasks=["root"], n=5000)) == 2
    assert "ask for fewer" in capsys.readouterr().err
