"""Collects the load that vLLM's schedulers report after every step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ponder.engine.protocol import Demand


class Demands:
    """The last report of every scheduler; with data parallelism there are several."""

    def __init__(self) -> None:
        self._said: dict[int, Demand] = {}

    def total(self) -> Demand:
        """Requests of all schedulers, and the fullest of their caches."""
        said = self._said.values()
        return Demand(
            running=sum(demand.running for demand in said),
            waiting=sum(demand.waiting for demand in said),
            cache=max((demand.cache for demand in said), default=0.0),
        )

    def take(self, scheduler: int, stats: Any) -> None:
        """Record a scheduler's report; `stats` are vLLM's `SchedulerStats`."""
        waiting = stats.num_waiting_reqs + stats.num_skipped_waiting_reqs
        self._said[scheduler] = Demand(
            running=stats.num_running_reqs, waiting=waiting, cache=stats.kv_cache_usage
        )

    def logger(self) -> Callable[[Any, int], Any]:
        """A factory of stat loggers for `AsyncLLM`, which makes one for each scheduler."""
        from vllm.v1.metrics.loggers import StatLoggerBase

        take = self.take

        class Logger(StatLoggerBase):  # type: ignore[misc]
            def __init__(self, vllm_config: Any, engine_index: int = 0) -> None:
                self._index = engine_index

            def record(
                self,
                scheduler_stats: Any,
                iteration_stats: Any,
                mm_cache_stats: Any = None,
                engine_idx: int = 0,
            ) -> None:
                if scheduler_stats is not None:
                    take(self._index, scheduler_stats)

            def log_engine_initialized(self) -> None:
                pass

        return Logger
