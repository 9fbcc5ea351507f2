"""Watches whether the engine is alive and gives tokens."""

from __future__ import annotations

import asyncio
import logging

from ponder.engine.protocol import Engine, EngineDeadError, EngineOverloadedError

logger = logging.getLogger(__name__)
HEALTH_CHECK_SECONDS = 1.0


class EngineWatch:
    """Checks the engine every second.

    `dead` is one-way. A stalled engine may give tokens again, and an engine that is `away` (it has
    no inference server) may come back.
    """

    def __init__(self, engine: Engine, stall_seconds: float) -> None:
        self.dead = False
        self.away = False
        self._engine = engine
        self._stall_seconds = stall_seconds

    @property
    def stalled(self) -> bool:
        """Whether choices run and the engine has given no token for too long."""
        return self._engine.silence() > self._stall_seconds

    async def until_dead(self) -> None:
        """Return once the engine is dead, or nobody can tell whether it lives."""
        stalled = False
        while True:
            try:
                await self._engine.check_health()
                self._returned()
            except EngineOverloadedError as error:
                self._went(error)
            except EngineDeadError as error:
                logger.critical("%s", error)
                break
            except Exception:
                logger.critical(
                    "checking the engine's health failed: this server ends, start it again",
                    exc_info=True,
                )
                break
            if self.stalled != stalled:
                stalled = not stalled
                self._tell(stalled)
            await asyncio.sleep(HEALTH_CHECK_SECONDS)
        self.dead = True

    def _went(self, error: EngineOverloadedError) -> None:
        if not self.away:
            logger.error("%s: /readyz says that the engine is away", error)
        self.away = True

    def _returned(self) -> None:
        if self.away:
            logger.warning("the engine is back: /readyz says that it is ready")
        self.away = False

    def _tell(self, stalled: bool) -> None:
        if stalled:
            logger.error(
                "the engine has given no token for %.0f s: /readyz says that it is stalled",
                self._engine.silence(),
            )
        else:
            logger.warning("the engine gives tokens again: /readyz says that it is ready")
