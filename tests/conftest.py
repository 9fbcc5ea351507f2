"""Shared by every test."""

from __future__ import annotations

import inspect
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import programs
import proxy
import pytest
from hypothesis import settings

from stores import PostgresServer, RedisServer
from waiting import PATIENCE

# Examples share the machine with real engines: a slow one says nothing.
settings.register_profile("ponder", deadline=None)
settings.load_profile("ponder")

# As httpx's own five seconds would say on a busy machine. All of its functions share this object.
_timeout = inspect.signature(httpx.get).parameters["timeout"].default
_timeout.connect = _timeout.read = _timeout.write = _timeout.pool = PATIENCE

# A shell has background jobs ignore Ctrl-C, and nohup hangups: the programs that tests start would
# inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

ENGINE_SECONDS = 1800
"""What a test on a real engine may take, its start included, on a machine that does much else."""


QUICK = tuple(
    Path(__file__).parent / "server" / room for room in ("thought", "protocol", "experiment")
)
"""Rooms whose tests start no process and load no model."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests by where they are, and put files with engines first: when a long file comes last,
    one process is busy with it while the others wait.
    """
    slow: set[Path] = set()
    for item in items:
        if any(item.path.is_relative_to(room) for room in QUICK):
            item.add_marker(pytest.mark.quick)
        if item.get_closest_marker("engine"):
            item.add_marker(pytest.mark.timeout(ENGINE_SECONDS))
            slow.add(item.path)
    items.sort(key=lambda item: item.path not in slow)


_BEGAN_WITH = dict(os.environ)


@pytest.fixture(autouse=True)
def environment() -> Iterator[None]:
    """What other tests and shared fixtures set, as an engine in this process does, no test finds:
    the servers that it starts would behave by it.
    """
    _as_it_began()
    yield
    _as_it_began()


def _as_it_began() -> None:
    current = {name: value for name, value in os.environ.items() if name.startswith("PYTEST_")}
    os.environ.clear()
    os.environ.update(_BEGAN_WITH | current)


@pytest.fixture(scope="session")
def program() -> Callable[[str], Path]:
    """A program that no Python package ships; without it the test is skipped, with the remedy."""

    def find(name: str) -> Path:
        try:
            return programs.find(name)
        except programs.NotFound as missing:
            pytest.skip(str(missing))

    return find


@pytest.fixture(scope="session")
def redis_server(
    program: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RedisServer]:
    """One that nobody stops: tests use names of their own in it."""
    program("redis-server")
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    yield server
    server.kill()


@pytest.fixture(scope="session")
def postgres_server(program: Callable[[str], Path]) -> Iterator[PostgresServer]:
    program("postgres")
    server = PostgresServer()
    yield server
    server.remove()


@pytest.fixture(scope="session")
def nginx(program: Callable[[str], Path]) -> Callable[[Path, str], list[str | Path]]:
    """The command that runs nginx in the foreground on a site, with everything in one folder."""
    found = program("nginx")
    seen = "add_header x-upstream $upstream_addr always;"
    return lambda folder, site: proxy.command(found, folder, site, seen)
