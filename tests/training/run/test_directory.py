from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import pytest
import torch

from ponder.training.run.directory import (
    check_resumable,
    checkpoints,
    is_full,
    place_checkpoint,
)
from ponder.training.run.recipe import RecipeError


def run_in(directory: Path, *steps: int, keep: int = 2) -> Path:
    directory.mkdir(parents=True)
    for step in steps:
        place_checkpoint(directory, step, keep, lambda staged: (staged / "state").touch())
    return directory


def test_a_checkpoint_is_whole_or_not_there(tmp_path: Path) -> None:
    out = run_in(tmp_path / "run", 2, 4, 10)
    assert [path.name for path in checkpoints(out)] == ["checkpoint-4", "checkpoint-10"]

    def dies(staged: Path) -> None:
        (staged / "half").touch()
        raise OSError("no space")

    with pytest.raises(OSError, match="no space"):
        place_checkpoint(out, 12, 2, dies)
    assert [path.name for path in checkpoints(out)] == ["checkpoint-4", "checkpoint-10"]
    place_checkpoint(out, 12, 1, lambda staged: (staged / "state").touch())
    assert [path.name for path in checkpoints(out)] == ["checkpoint-12"]
    assert sorted(path.name for path in out.iterdir()) == ["checkpoints"]


@pytest.mark.parametrize(
    ("write", "full"),
    [
        (lambda: Path("/dev/full").write_text("x"), True),
        (lambda: torch.save(torch.zeros(100_000), "/dev/full"), True),
        (lambda: torch.load(BytesIO(b"PK\x03\x04 and no more")), False),
        (lambda: Path("/dev/null/file").write_text("x"), False),
    ],
    ids=["a file", "a tensor", "a damaged checkpoint", "no directory"],
)
def test_a_full_disk_is_told_from_other_failures(write: Callable[[], object], full: bool) -> None:
    with pytest.raises((OSError, RuntimeError, EOFError)) as caught:
        write()
    assert is_full(caught.value) == full
    other = ValueError("the checkpoint was not written")
    other.__context__ = caught.value
    assert is_full(other) == full


def test_a_run_to_resume_must_be_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RecipeError, match=r"no run in nope \(there is no such directory\): leave"):
        check_resumable(Path("nope"))
    run_in(tmp_path / "runs" / "grpo", 2)
    run_in(tmp_path / "runs" / "hbpo", 2)
    run_in(tmp_path / "runs" / "hbpp")  # no checkpoint: not one to continue
    check_resumable(Path("runs/hbpo"))
    with pytest.raises(RecipeError, match=r"runs/hbp \(.*did you mean --out runs/hbpo\?"):
        check_resumable(Path("runs/hbp"))
    with pytest.raises(RecipeError, match=r"hbpp \(it holds no checkpoint\).*--out runs/hbpo"):
        check_resumable(Path("runs/hbpp"))
