"""A server's link to Redis: whether Redis is there, and messages between servers."""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from prometheus_client import Gauge

from ponder.environment.urls import without_password
from ponder.experiment.store import StateError

if TYPE_CHECKING:
    from redis.asyncio import Redis

logger = logging.getLogger(__name__)

BEAT_SECONDS = 1.0
"""Seconds between two checks that Redis is there and takes writes."""
ANSWER_SECONDS = 0.5
"""Seconds in which Redis has to answer; a slower answer counts as lost."""
_CONNECTIONS = 32

Hear = Callable[[dict[str, Any]], Awaitable[None]]


class Link:
    """`up` says whether Redis answers and takes writes; `running` keeps checking.

    A server that starts while Redis is away serves all the same. A caller whose command fails calls
    `lost`; from then on no caller waits for Redis until it is back.
    """

    def __init__(self, url: str) -> None:
        """Raises `StateError` where redis-py is missing or cannot read the URL."""
        try:
            from redis.asyncio import BlockingConnectionPool, Redis
            from redis.asyncio.retry import Retry
            from redis.backoff import NoBackoff
            from redis.exceptions import ConnectionError as Unreachable
        except ImportError as error:
            raise StateError(
                "--redis needs redis-py: pip install 'ponder[shared]', or leave it out"
            ) from error
        self.shown = without_password(url)
        try:
            # One retry, for a connection that had gone stale; none where Redis is too slow.
            pool = BlockingConnectionPool.from_url(
                url,
                max_connections=_CONNECTIONS,
                timeout=ANSWER_SECONDS,
                socket_timeout=ANSWER_SECONDS,
                socket_connect_timeout=ANSWER_SECONDS,
                retry=Retry(NoBackoff(), 1, supported_errors=(Unreachable,)),
                decode_responses=True,
            )
        except ValueError as error:
            raise StateError(
                f"--redis {self.shown} is no address ({error}): write redis://host:6379/0"
            ) from error
        self.redis: Redis = Redis.from_pool(pool)
        self._write = self.redis.register_script(
            "return redis.call('SET', KEYS[1], '1', 'PX', ARGV[1])"
        )
        self.up = False
        # Unlike keys, channels are shared by all databases of a Redis.
        channels = f"ponder:{pool.connection_kwargs.get('db') or 0}"
        self.everybody = f"{channels}:servers"
        self.inbox = f"{channels}:server:{secrets.token_hex(8)}"
        self._hear: Hear | None = None
        self._each_beat: list[Callable[[], Awaitable[None]]] = []
        self._hearing: set[asyncio.Task[None]] = set()
        self._silent = False  # its absence was logged
        gauge = Gauge(
            "ponder_pool_store_up",
            "1 while the server reaches Redis, in which servers share pools and replies; else 0",
            registry=None,
        )
        gauge.set_function(lambda: self.up)
        self.collectors = (gauge,)

    def hears(self, hear: Hear) -> None:
        """Add a receiver of the messages for this server and for all."""
        self._hear = hear

    def each_beat(self, work: Callable[[], Awaitable[None]]) -> None:
        """Add work to do whenever a check finds Redis there."""
        self._each_beat.append(work)

    def lost(self, error: Exception) -> None:
        """Note that a command failed: Redis counts as away until a check finds it back."""
        self.up = False
        if not self._silent:
            self._silent = True
            logger.error(
                "Redis at %s is away (%s): this server's pools are its own until it is back, and "
                "thoughts of other servers cannot be finished here",
                self.shown,
                str(error) or type(error).__name__,
            )

    async def tell_all(self, message: dict[str, Any]) -> int:
        """Send every server a message, this one too; returns how many get it."""
        return await self.tell(self.everybody, message)

    async def tell(self, inbox: str, message: dict[str, Any]) -> int:
        """Send one server a message; returns how many get it. Raises `RedisError`."""
        heard: int = await self.redis.publish(inbox, json.dumps(message))
        return heard

    async def check(self) -> None:
        """Raise `StateError` where Redis refuses this user the commands that the link needs."""
        from redis.exceptions import AuthenticationError, NoPermissionError, RedisError

        try:
            await self._beat()
        except (AuthenticationError, NoPermissionError) as error:
            await self.redis.aclose()
            raise StateError(
                f"Redis at {self.shown} refuses ({error}): give --redis a user and password that "
                f"it lets in, to write, run scripts, publish and subscribe"
            ) from error
        except RedisError as error:
            self.lost(error)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Keep the link while this is open."""
        from redis.exceptions import RedisError

        task = asyncio.create_task(self._run())
        try:
            yield
        finally:
            while not task.done():  # a connection that fails to close swallows a cancellation
                task.cancel()
                await asyncio.wait([task], timeout=BEAT_SECONDS)
            try:
                await self.redis.aclose()
            except (RedisError, OSError) as error:
                logger.warning("a connection to Redis was not closed in time: %s", error)

    async def _run(self) -> None:
        from redis.exceptions import RedisError

        while True:
            for step in (self._live, self._forget):
                try:
                    await step()
                except* (RedisError, OSError) as errors:
                    self.lost(errors.exceptions[0])
                except* Exception as errors:
                    logger.exception("the link to Redis failed and begins anew")
                    self.lost(errors.exceptions[0])
            await asyncio.sleep(BEAT_SECONDS)

    async def _forget(self) -> None:
        """Close idle connections: they may lead to a server that is no longer the primary."""
        await self.redis.connection_pool.disconnect(inuse_connections=False)

    async def _live(self) -> None:
        """Subscribe, and check Redis until the first failure, which may have lost messages."""
        async with self.redis.pubsub(ignore_subscribe_messages=True) as channels:
            await channels.subscribe(self.everybody, self.inbox)
            await self._beat()
            self.up = True
            if self._silent:
                self._silent = False
                logger.warning("Redis at %s is back: pools are shared again", self.shown)
            async with asyncio.TaskGroup() as group:
                group.create_task(self._listen(channels))
                group.create_task(self._keep())

    async def _listen(self, channels: Any) -> None:
        while True:
            message = await channels.get_message(timeout=BEAT_SECONDS)
            if message is not None and self._hear is not None:
                task = asyncio.create_task(self._heard(json.loads(message["data"])))
                self._hearing.add(task)
                task.add_done_callback(self._hearing.discard)

    async def _heard(self, message: dict[str, Any]) -> None:
        from redis.exceptions import RedisError

        assert self._hear is not None
        try:
            await self._hear(message)
        except RedisError as error:
            self.lost(error)

    async def _keep(self) -> None:
        from redis.exceptions import ConnectionError as Unreachable

        while True:
            await asyncio.sleep(BEAT_SECONDS)
            if not self.up:
                raise Unreachable("a request was not answered")
            await self._beat()

    async def _beat(self) -> None:
        """Check Redis by a script that writes: a read-only or full Redis still answers a PING."""
        await self._write(keys=[f"{self.inbox}:beat"], args=[int(4000 * BEAT_SECONDS)])
        for work in self._each_beat:
            await work()
