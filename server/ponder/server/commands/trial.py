"""`ponder contract --check --serve` asks the loaded model twenty questions under budgets."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from ponder.checkpoint.chat import Prompt
from ponder.checkpoint.checkpoint import Checkpoint
from ponder.engine.protocol import Engine, Load, Sampling
from ponder.engine.table import load_engine
from ponder.thought.answer import AnswerDelta
from ponder.thought.budget import UNLIMITED, Ask, Limits
from ponder.thought.drive import drive
from ponder.thought.errors import NoAnswerProduced, ThoughtError
from ponder.thought.exits.loop import Loop
from ponder.thought.families import unread
from ponder.thought.format import ThoughtFormat
from ponder.thought.outcome import Outcome, ThoughtDelta
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


@dataclass(frozen=True, slots=True)
class Reply:
    """What a model thought and answered."""

    thought: str
    answer: str
    outcome: Outcome


async def ask(
    checkpoint: Checkpoint, engine: Engine, prompt: Prompt, request_id: str, seed: int = 0
) -> Reply:
    """Raises `NoAnswerProduced`, `EngineError`."""
    events = list[Event]()
    sampling = Sampling(max_tokens=0, seed=seed)
    thought = checkpoint.thought(prompt, sampling, exits=[Loop()])
    outcome = await drive(thought, engine, request_id, events.append)
    return Reply(
        "".join(event.text for event in events if isinstance(event, ThoughtDelta)),
        "".join(event.text for event in events if isinstance(event, AnswerDelta)),
        outcome,
    )


def tried(checkpoint: Checkpoint) -> list[str]:
    """A sentence for each failure of the model on vLLM; see `ask_all`.

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
        return asyncio.run(ask_all(checkpoint, engine))
    finally:
        engine.shutdown()


async def ask_all(checkpoint: Checkpoint, engine: Engine) -> list[str]:
    """A sentence for each failure: an empty answer, a broken budget, a marker in the answer.

    A thought that is opened or closed a second time is one too, although nobody sees it.
    """
    asked = [(question, budget) for question in _QUESTIONS for budget in _BUDGETS]
    found = await asyncio.gather(
        *(_tried(checkpoint, engine, number, *one) for number, one in enumerate(asked))
    )
    failures = [failure for _, failures in found for failure in failures]
    thoughts = [tokens for tokens, _ in found if tokens is not None]
    if thoughts and not any(thoughts):
        failures.append("the model never thought: its markers may be wrong")
    return failures


async def _tried(
    checkpoint: Checkpoint, engine: Engine, number: int, question: str, budget: int
) -> tuple[int | None, list[str]]:
    """The tokens of a thought, None without a reply, and a sentence for each failure."""
    assert checkpoint.form is not None
    said = f"{question!r} with budget {budget}"
    limits = Limits(max_model_len=engine.facts.max_model_len)
    most = min(_MOST_TOKENS, limits.max_model_len // 2)
    try:
        prompt = checkpoint.prompt(
            [{"role": "user", "content": question}],
            Ask(budget=budget, max_completion_tokens=most),
            limits,
        )
        reply = await ask(checkpoint, engine, prompt, f"trial-{number}", seed=number)
    except NoAnswerProduced as error:
        return None, [f"{said}: {error}"]
    except ThoughtError as error:
        return None, [f"{said} is refused: {error}"]
    failures = [f"{said}: {failure}" for failure in _failures(reply, checkpoint.form, budget)]
    return reply.outcome.thinking_tokens, failures


def _failures(reply: Reply, form: ThoughtFormat, budget: int) -> list[str]:
    answer, outcome, found = reply.answer, reply.outcome, []
    if not answer.strip():
        found.append("the answer is empty")
    if budget != UNLIMITED and outcome.thinking_tokens > budget:
        found.append(f"{outcome.thinking_tokens} tokens of thought")
    if outcome.reopens:
        found.append("the answer opens a thought again, which is hidden")
    if outcome.closes and not form.headers:  # an answer of several messages has several
        found.append("the answer closes a thought again, which is hidden")
    own = (form.start, form.end, form.again, form.skip_text, *(form.wrapper or ()))
    markers = {marker.strip() for marker in own if marker and marker.strip()}
    shown = sorted(marker for marker in markers if marker in answer)
    if not shown and (marker := unread(answer)) is not None:
        shown = [marker]
    return [*found, *(f"the answer shows {marker!r}" for marker in shown)]
