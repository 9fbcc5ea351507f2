"""`python -m tests.bench.exits`: what it costs to look for loops, in µs per token of thought.

Thoughts are read as a server reads them, without an engine, with the loop exit and without it in
turn; each figure is the best of several rounds, so that what else the machine does is left out.
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence

from ponder.engine.protocol import Chunk, Sampling
from ponder.engine.scripted import ByteVocabulary
from ponder.thought.budget import Plan
from ponder.thought.exits.exit import Exit
from ponder.thought.exits.loop import Loop
from ponder.thought.format import CompiledFormat, ThoughtFormat
from ponder.thought.segment import AnswerRules
from ponder.thought.thought import Thought

TOKENS = 8192
ROUNDS = 15
CHUNKS = (1, 16)  # tokens that a streamed and a whole reply are reported in
VOCABULARY = ByteVocabulary()
FORM = CompiledFormat.of(ThoughtFormat(name="bench"), "template", VOCABULARY)
PLAN = Plan(requested=None, budget=TOKENS, source="request", allowance=2 * TOKENS, reserve=1)


def texts() -> dict[str, list[int]]:
    """Thoughts that are no loops; the last one nearly is at every look."""
    rng = random.Random(7)
    lines = ("." * 63 + chr(ord("a") + n % 26) for n in range(TOKENS))
    return {
        "letters at random": [rng.randrange(97, 123) for _ in range(TOKENS)],
        "counting": [*"".join(f"{n} is odd? " for n in range(TOKENS)).encode()[:TOKENS]],
        "a table": [*"".join(f"| {n} | {n * n} |\n" for n in range(TOKENS)).encode()[:TOKENS]],
        "runs of 63 dots": [*"".join(lines).encode()[:TOKENS]],
    }


def read(ids: Sequence[int], chunk: int, exits: Sequence[Exit]) -> float:
    """Microseconds of CPU for a token."""
    chunks = [Chunk(ids[start : start + chunk]) for start in range(0, len(ids), chunk)]
    thought = Thought(
        VOCABULARY,
        FORM,
        prompt=(),
        plan=PLAN,
        sampling=Sampling(max_tokens=1),
        rules=AnswerRules(),
        exits=exits,
    )
    thought.start(0.0)
    began = time.process_time()
    for part in chunks:
        thought.feed(part, 0.0)
    spent = time.process_time() - began
    assert thought.outcome.thought_ended_at is None, "this text is a loop"
    return spent / len(ids) * 1e6


def main() -> None:
    print(f"{'text':20} {'chunks of':>9} {'without':>9} {'with':>9} {'more':>9}   µs a token")
    for name, ids in texts().items():
        for chunk in CHUNKS:
            without, with_loop = [], []
            for _ in range(ROUNDS):
                without.append(read(ids, chunk, ()))
                with_loop.append(read(ids, chunk, (Loop(),)))
            one, other = min(without), min(with_loop)
            print(f"{name:20} {chunk:9} {one:9.2f} {other:9.2f} {other - one:9.2f}")


if __name__ == "__main__":
    main()
