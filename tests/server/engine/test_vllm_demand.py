"""What vLLM's schedulers tell, added up; tests/integration/test_pools.py has a real one."""

from __future__ import annotations

import inspect

from vllm.v1.metrics.loggers import StatLoggerBase
from vllm.v1.metrics.stats import SchedulerStats

from ponder.engine.protocol import Demand
from ponder.engine.vllm_demand import Demands


def test_before_a_scheduler_speaks_there_is_nothing_to_do() -> None:
    assert Demands().total() == Demand()


def test_schedulers_add_up_and_the_fullest_cache_counts() -> None:
    demands = Demands()
    make = demands.logger()
    one, other = make(None, 0), make(None, 1)
    one.record(SchedulerStats(num_running_reqs=8, num_waiting_reqs=2, kv_cache_usage=0.5), None)
    other.record(SchedulerStats(num_running_reqs=4, kv_cache_usage=0.75), None)
    assert demands.total() == Demand(running=12, waiting=2, cache=0.75)
    one.record(None, None)  # a step without statistics says nothing
    one.record(SchedulerStats(num_skipped_waiting_reqs=3), None)
    assert demands.total() == Demand(running=4, waiting=3, cache=0.75)


def test_it_is_called_as_vllm_calls_its_own() -> None:
    own = inspect.signature(StatLoggerBase.record).parameters
    ours = inspect.signature(Demands().logger()(None, 0).record).parameters
    assert list(ours) == [name for name in own if name != "self"]
