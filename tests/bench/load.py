"""A closed loop of requests, and what a server did during a window of it."""

from __future__ import annotations

import asyncio
import itertools
import resource
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter

import psutil

from .client import Connection, Reply, connect
from .errors import BenchError
from .server import Server

_PATIENCE_SECONDS = 120.0  # beyond warm-up and window


@dataclass(frozen=True, slots=True)
class Measurement:
    """One point on one server. Seconds, MiB, tokens.

    `cpu_per_1000` is CPU time of the server's processes per 1000 tokens, `front_cpu_per_1000` that
    of the process that speaks HTTP, which is where the servers differ; `client_cpu` is the share
    of one core that the load generator took, `other_cpu` the cores that neither had: on a quiet
    machine about 0. `ttft` is the median, of streams only.
    """

    tokens_per_second: float
    requests: int
    ttft: float | None
    cpu_per_1000: float
    front_cpu_per_1000: float
    client_cpu: float
    other_cpu: float
    pss_mib: float
    seconds: float


async def measure(
    server: Server,
    payloads: Sequence[bytes],
    *,
    concurrency: int,
    tokens: int,
    check: Callable[[Reply], None],
    warmup: float,
    seconds: float,
) -> Measurement:
    """Load `server` and measure for `seconds`, after `warmup` and a reply on every connection.

    `tokens` is what one request counts for; `check` raises on a reply that is not as it should
    be. Memory is read while the load goes on, after the window.
    """
    loop = _ClosedLoop(payloads, check, concurrency)
    try:
        async with (
            asyncio.timeout(warmup + seconds + _PATIENCE_SECONDS),
            asyncio.TaskGroup() as group,
        ):
            lanes = [
                group.create_task(loop.run(await connect(server.port), lane))
                for lane in range(concurrency)
            ]
            await asyncio.sleep(warmup)
            await loop.replied_since(0.0)
            before, start = _cpu(server), perf_counter()
            await asyncio.sleep(seconds)
            after, end = _cpu(server), perf_counter()
            pss = await asyncio.to_thread(server.pss_mib)
            await loop.replied_since(end)
            for lane in lanes:
                lane.cancel()
    except* BenchError as errors:
        raise errors.exceptions[0] from None
    except* TimeoutError:
        raise BenchError("the server stopped answering under load") from None
    served, front, own, busy = (b - a for a, b in zip(before, after, strict=True))
    produced = tokens * loop.requests_within(start, end)
    times = [
        reply.first - reply.started
        for reply in loop.replies
        if reply.first is not None and start <= reply.started < end
    ]
    return Measurement(
        tokens_per_second=produced / (end - start),
        requests=sum(start <= reply.ended < end for reply in loop.replies),
        ttft=statistics.median(times) if times else None,
        cpu_per_1000=1000 * served / produced,
        front_cpu_per_1000=1000 * front / produced,
        client_cpu=own / (end - start),
        other_cpu=max(0.0, busy - served - own) / (end - start),
        pss_mib=pss,
        seconds=end - start,
    )


class _ClosedLoop:
    """Each lane sends its next request when it has its reply."""

    def __init__(
        self, payloads: Sequence[bytes], check: Callable[[Reply], None], lanes: int
    ) -> None:
        self._payloads = itertools.cycle(payloads)
        self._check = check
        self._last = [0.0] * lanes
        self._replied = asyncio.Event()
        self.replies: list[Reply] = []

    async def run(self, connection: Connection, lane: int) -> None:
        try:
            while True:
                reply = await connection.ask(next(self._payloads))
                self._check(reply)
                self._last[lane] = reply.ended
                self.replies.append(reply)
                self._replied.set()
        finally:
            connection.close()

    async def replied_since(self, moment: float) -> None:
        """Every lane has had a reply after `moment`; the load goes on meanwhile."""
        while min(self._last) <= moment:
            self._replied.clear()
            await self._replied.wait()

    def requests_within(self, start: float, end: float) -> float:
        """Requests served in the window, those that cross its edges by the part inside.

        Lanes that run in step finish in bursts: counting whole requests would err by a burst.
        """
        return sum(
            max(0.0, min(end, reply.ended) - max(start, reply.started))
            / (reply.ended - reply.started)
            for reply in self.replies
        )


def _cpu(server: Server) -> tuple[float, float, float, float]:
    """CPU seconds so far: of the server, of its first process, of this one, of the machine."""
    processes = server.cpu_seconds()
    usage = resource.getrusage(resource.RUSAGE_SELF)
    machine = psutil.cpu_times()
    busy = machine.user + machine.system + machine.nice + machine.irq + machine.softirq
    own = usage.ru_utime + usage.ru_stime
    return sum(processes), processes[0], own, busy + machine.steal
