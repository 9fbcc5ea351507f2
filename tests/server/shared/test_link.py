"""The link of a server to Redis: what is wrong is said, and what is away is found out."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pydantic import ValidationError

from ponder.experiment.ledger import open_store
from ponder.experiment.store import StateError
from ponder.protocol.errors import ApiError
from ponder.server.settings import Settings
from ponder.server.shared import replies as replies_module
from ponder.server.shared.link import Link
from ponder.server.shared.replies import SharedReplies
from stores import RedisServer


@pytest.fixture
def redis(program: Callable[[str], Path], tmp_path: Path) -> Iterator[RedisServer]:
    """One for a test alone."""
    program("redis-server")
    server = RedisServer(tmp_path)
    yield server
    server.kill()


async def until(happened: Callable[[], object]) -> None:
    for _ in range(6000):
        if happened():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not happen")


@pytest.mark.parametrize(
    "error", [TimeoutError("Timed out closing connection"), AttributeError("no attribute 'close'")]
)
def test_a_link_that_fails_at_its_end_begins_anew(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """redis-py raises where an old connection cannot be closed in time."""

    async def go() -> None:
        link = Link(redis.url)
        closes = link.redis.connection_pool.disconnect
        failed = asyncio.Event()

        async def fail(**_: bool) -> None:
            monkeypatch.setattr(link.redis.connection_pool, "disconnect", closes)
            failed.set()
            raise error

        async with link.running():
            await until(lambda: link.up)
            monkeypatch.setattr(link.redis.connection_pool, "disconnect", fail)
            link.lost(ConnectionError("a command failed"))
            await failed.wait()
            await until(lambda: link.up)

    asyncio.run(go())


def test_a_redis_that_refuses_writes_counts_as_away_until_it_takes_them(
    redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    """It answers all the while."""

    async def go() -> None:
        link = Link(redis.url)
        await link.check()
        async with link.running():
            await until(lambda: link.up)
            with redis.client() as client:
                client.config_set("min-replicas-to-write", 1)
                await until(lambda: not link.up)
                assert client.ping()
                client.config_set("min-replicas-to-write", 0)
            await until(lambda: link.up)

    asyncio.run(go())
    assert caplog.text.count("is away (NOREPLICAS Not enough good replicas to write.") == 1
    assert caplog.text.count("is back: pools are shared again") == 1


def test_a_server_that_does_not_answer_may_have_the_reply(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def go() -> None:
        link, elsewhere = Link(redis.url), Link(redis.url.replace("/0", "/1"))
        replies = SharedReplies(link)
        async with link.running(), elsewhere.running():
            await until(lambda: link.up and elsewhere.up)
            assert await link.tell_all({"answers": -1}) == 1
            with pytest.raises(ApiError) as nobody:
                await replies.finish("chatcmpl-1", "", None)
            assert (nobody.value.status, nobody.value.code) == (404, "response_not_found")
            monkeypatch.setattr(replies_module, "ANSWERS_SECONDS", 0.1)
            async with link.redis.pubsub() as silent:
                await silent.subscribe(link.everybody)
                with pytest.raises(ApiError) as unknown:
                    await replies.finish("chatcmpl-1", "", None)
            assert (unknown.value.status, unknown.value.code) == (503, "servers_unreachable")

    asyncio.run(go())


def test_a_password_that_is_wrong_is_said_at_the_start_and_never_shown(redis: RedisServer) -> None:
    with redis.client() as client:
        client.acl_setuser("reader", True, passwords=["+pass"], categories=["+@read"], keys=["*"])
        client.config_set("requirepass", "right")
    for user in ("", ":wrong@"):
        link = Link(redis.url.replace("//", f"//{user}"))
        with pytest.raises(StateError, match="give --redis a user and password") as refused:
            asyncio.run(link.check())
        assert "wrong@" not in str(refused.value)
        assert f"127.0.0.1:{redis.port}" in str(refused.value)
    link = Link(redis.url.replace("//", "//reader:pass@"))
    with pytest.raises(StateError, match="to write, run scripts"):
        asyncio.run(link.check())


def test_a_server_starts_while_redis_is_away(
    redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    async def go() -> None:
        redis.kill()
        link = Link(redis.url)
        await link.check()
        assert not link.up
        async with link.running():
            redis.start()
            await until(lambda: link.up)

    asyncio.run(go())
    assert "is away" in caplog.text


@pytest.mark.parametrize("given", ["localhost:6379", "redis://", "http://host", "redis"])
def test_what_is_no_redis_is_told_the_remedy(given: str) -> None:
    with pytest.raises(ValidationError, match="write redis://host:6379/0"):
        Settings(redis=given)  # type: ignore[arg-type]


def test_savings_and_pools_are_kept_in_different_places() -> None:
    with pytest.raises(ValidationError, match="not in redis://: give it to --redis"):
        Settings(state="redis://host:6379/0")


@pytest.mark.parametrize(
    ("module", "use"),
    [
        ("redis.asyncio", lambda: Link("redis://host")),
        ("psycopg", lambda: open_store("postgresql://host/database", "{}")),
    ],
)
def test_a_library_that_is_missing_is_named(
    module: str, use: Callable[[], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(StateError, match=r"pip install 'ponder\[shared\]'"):
        use()
