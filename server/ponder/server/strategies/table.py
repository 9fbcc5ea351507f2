"""The strategies by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ponder.protocol.fields import StrategyAsk
from ponder.server.strategies.best_of import BestOf
from ponder.server.strategies.particles import Particles
from ponder.server.strategies.protocol import Strategy
from ponder.server.strategies.self_consistency import SelfConsistency

STRATEGIES: Mapping[str, Callable[[StrategyAsk], Strategy]] = {
    "best_of": lambda _: BestOf(),
    "self_consistency": lambda _: SelfConsistency(),
    "particles": lambda asked: Particles(asked.interval),
}
