"""Chooses the data-parallel engine of vLLM that a thought runs on.

Each has a prefix cache of its own, and vLLM sends every request to the one with the least load: a
thought that is cut and re-entered might not find its prompt in the cache there.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_REMEMBERED = 1 << 16  # thoughts; an older one is placed again


class Ranks:
    """Places thoughts on `size` engines: a new one goes where the fewest requests run, and stays.

    >>> ranks = Ranks(2)
    >>> with ranks.taken("a") as first, ranks.taken("b") as second, ranks.taken("a") as again:
    ...     (first, second, again)
    (0, 1, 0)
    """

    def __init__(self, size: int) -> None:
        self._running = [0] * size
        self._homes: OrderedDict[str, int] = OrderedDict()

    @classmethod
    def of(cls, arguments: Any) -> Ranks:
        """The ranks of vLLM's `AsyncEngineArgs`; one where a balancer outside chooses."""
        chosen = (
            arguments.data_parallel_external_lb
            or arguments.data_parallel_hybrid_lb
            or arguments.data_parallel_rank is not None
        )
        return cls(1 if chosen else arguments.data_parallel_size)

    @contextmanager
    def taken(self, affinity: str) -> Iterator[int | None]:
        """The rank of a thought's request while it runs; None where there is only one."""
        if len(self._running) == 1:
            yield None
            return
        rank = self._homes.pop(affinity, None)
        if rank is None:
            rank = min(range(len(self._running)), key=self._running.__getitem__)
        self._homes[affinity] = rank
        if len(self._homes) > _REMEMBERED:
            self._homes.popitem(last=False)
        self._running[rank] += 1
        try:
            yield rank
        finally:
            self._running[rank] -= 1
