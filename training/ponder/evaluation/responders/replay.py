"""An engine that records its samples and plays them back."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import replace

from ponder.engine.protocol import Chunk, Engine, EngineFacts, EngineRequest, Sampling


class ReplayEngine:
    """Samples a request once on `engine` and plays it back when the same request comes again.

    After a thought under a large budget, a smaller budget gets the same thought, cuts it by its own
    rules and samples the answer alone; a thought that ended before the smaller budget plays back
    its own answer, too. An aborted request plays back as far as it was read, and a smaller budget
    reads no further.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._records: list[tuple[list[int], Sampling, list[Chunk]]] = []

    @property
    def facts(self) -> EngineFacts:
        return self._engine.facts

    async def generate(self, request: EngineRequest) -> AsyncGenerator[Chunk, None]:
        # Chunks do not change the tokens.
        key = (list(request.prompt), replace(request.sampling, chunk_tokens=1))
        for *known, record in self._records:
            if tuple(known) == key:
                for chunk in record:
                    yield chunk
                return
        chunks: list[Chunk] = []
        self._records.append((*key, chunks))
        stream = self._engine.generate(request)
        try:
            async for chunk in stream:
                chunks.append(chunk)
                yield chunk
        finally:
            await stream.aclose()

    def unfinished(self) -> int:
        return self._engine.unfinished()

    def silence(self) -> float:
        return self._engine.silence()

    async def check_health(self) -> None:
        await self._engine.check_health()

    def shutdown(self) -> None:
        self._engine.shutdown()
