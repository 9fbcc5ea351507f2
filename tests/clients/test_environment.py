"""Where state lies, for users with and without a home."""

from __future__ import annotations

from pathlib import Path

import pytest

from ponder import environment


@pytest.fixture(autouse=True)
def unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)


def test_state_lies_in_the_users_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert environment.state_home() == tmp_path / ".local/state/ponder"
    monkeypatch.setenv("XDG_STATE_HOME", "relative, and so ignored")
    assert environment.state_home() == tmp_path / ".local/state/ponder"
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "own"))
    assert environment.state_home() == tmp_path / "own/ponder"


def test_a_user_without_a_home_has_the_root_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", homeless)
    assert environment.state_home() == Path("/.local/state/ponder")
