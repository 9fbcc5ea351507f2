from __future__ import annotations

from collections.abc import Iterator

import pytest

from ponder import environment

from .scripted import ScriptedServer


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    server = ScriptedServer()
    yield server
    server.close()


@pytest.fixture(autouse=True)
def nothing_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever runs the tests may have a server of their own."""
    for name in (*environment.URL, *environment.API_KEY, *environment.MODEL):
        monkeypatch.delenv(name, raising=False)
