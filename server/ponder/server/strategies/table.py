"""The strategies by name."""

from __future__ import annotations

from collections.abc import Mapping

from ponder.server.strategies.best_of import BestOf
from ponder.server.strategies.particles import Particles
from ponder.server.strategies.protocol import Strategy
from ponder.server.strategies.self_consistency import SelfConsistency

STRATEGIES: Mapping[str, type[Strategy]] = {
    "best_of": BestOf,
    "self_consistency": SelfConsistency,
    "particles": Particles,
}


def strategies(*, verifier: bool) -> list[str]:
    """The strategies that a server offers, with a verifier or without."""
    return [name for name, one in STRATEGIES.items() if verifier or not one.needs_verifier]
