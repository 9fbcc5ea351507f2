"""`ponder contract --check --serve` asks the loaded model twenty questions under budgets."""

from __future__ import annotations

import asyncio

from ponder.checkpoint.checkpoint import Checkpoint
from ponder.engine.protocol import Engine, Load, Sampling
from ponder.engine.table import load_engine
from ponder.thought.answer import AnswerDelta
from ponder.thought.budget import UNLIMITED, Ask, Limits
from ponder.thought.drive import drive
from ponder.thought.errors import NoAnswerProduced, ThoughtError
from ponder.thought.exits.loop import Loop
from ponder.thought.thought import Event

_QUESTIONS = (
    "What is 17 + 25 - 9?",
    "Name three rivers in Europe.",
    "Is 91 a prime number?",
    "Write one sentence about rain.",
    "What is the capital of Australia?",
)
_BUDGETS = (0, 16, 128, UNLIMITED)
_MOST_TOKENS = 1024


def tried(checkpoint: Checkpoint) -> list[str]:
    """A sentence for each failure: an empty answer, a broken budget, a marker in the answer.

    Raises `EngineSetupError`, or what loading the model raises.
    """
    files = checkpoint.files
    load = Load(
        name=files.name,
        directory=files.directory,
        served_as=files.label,
        vocabulary=checkpoint.tokenizer,
    )
    engine = load_engine("vllm", load)
    try:
        return asyncio.run(_ask_all(checkpoint, engine))
    finally:
        engine.shutdown()


async def _ask_all(checkpoint: Checkpoint, engine: Engine) -> list[str]:
    asked = [(question, budget) for question in _QUESTIONS for budget in _BUDGETS]
    found = await asyncio.gather(
        *(_ask(checkpoint, engine, number, *one) for number, one in enumerate(asked))
    )
    return [failure for failures in found for failure in failures]


async def _ask(
    checkpoint: Checkpoint, engine: Engine, number: int, question: str, budget: int
) -> list[str]:
    form, answer = checkpoint.form, list[str]()
    assert form is not None

    def emit(event: Event) -> None:
        if isinstance(event, AnswerDelta):
            answer.append(event.text)

    said = f"{question!r} with budget {budget}"
    limits = Limits(max_model_len=engine.facts.max_model_len)
    most = min(_MOST_TOKENS, limits.max_model_len // 2)
    try:
        prompt = checkpoint.prompt(
            [{"role": "user", "content": question}],
            Ask(budget=budget, max_completion_tokens=most),
            limits,
        )
        thought = checkpoint.thought(prompt, Sampling(max_tokens=0, seed=number), exits=[Loop()])
        outcome = await drive(thought, engine, f"trial-{number}", emit)
    except NoAnswerProduced as error:
        return [f"{said}: {error}"]
    except ThoughtError as error:
        return [f"{said} is refused: {error}"]
    text, failures = "".join(answer), []
    if not text.strip():
        failures.append(f"{said}: the answer is empty")
    if budget != UNLIMITED and outcome.thinking_tokens > budget:
        failures.append(f"{said}: {outcome.thinking_tokens} tokens of thought")
    markers = (form.start.strip(), form.end.strip())
    failures += [f"{said}: the answer shows {m!r}" for m in markers if m and m in text]
    return failures
