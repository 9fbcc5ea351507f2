"""Lives a thought on an engine: the one place in the domain that awaits."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import aclosing

from ponder.engine.protocol import Engine, EngineError, EngineRequest
from ponder.thought.outcome import Outcome
from ponder.thought.thought import Event, Thought


async def drive(
    thought: Thought, engine: Engine, request_id: str, emit: Callable[[Event], None]
) -> Outcome:
    """Live the life. Raises `NoAnswerProduced`, `EngineError`.

    `emit` gets text as it becomes certain, and nobody waits for whoever reads it, so that a slow
    reader cannot make the engine run past the budget. Cancelling aborts the engine's request.
    """
    for event in thought.start(time.perf_counter()):
        emit(event)
    while (segment := thought.segment) is not None:
        name = f"{request_id}-{segment.number}"
        request = EngineRequest(segment.prompt, segment.sampling, name)
        async with aclosing(engine.generate(request)) as stream:
            async for chunk in stream:
                for event in thought.feed(chunk, time.perf_counter()):
                    emit(event)
                if thought.segment is not segment:
                    break
            else:
                raise EngineError("the engine's stream ended before its request did")
    if thought.outcome.failure is not None:
        raise thought.outcome.failure
    return thought.outcome
