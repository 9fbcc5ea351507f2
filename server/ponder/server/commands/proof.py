"""`ponder contract --check` proves what a contract says, with the model's tokenizer and template.

A scripted model plays the thoughts: it needs no weights.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from ponder.checkpoint.checkpoint import Checkpoint
from ponder.checkpoint.traits import HELLO, opening, tail
from ponder.engine.scripted import ScriptedEngine, say
from ponder.engine.tokenizer import TokenizerError
from ponder.server.commands.trial import ask
from ponder.thought.budget import UNLIMITED, Ask, Limits
from ponder.thought.errors import NoAnswerProduced
from ponder.thought.format import ThoughtFormat

_THOUGHT, _ANSWER = "I add 8 and 5.\nThat is 13.", "It is 13."
_FEW = 4
_LIMITS = Limits(max_model_len=1 << 16)


def proved(checkpoint: Checkpoint) -> Iterator[str]:
    """A sentence for each check that fails."""
    form, tokenizer = checkpoint.form, checkpoint.tokenizer
    if form is None:
        yield "no thought is known: there is nothing to prove"
        return
    if not tokenizer.eos_token_ids:
        yield "nothing ends an answer: name an eos_token_id in generation_config.json"
        return
    if tokenizer.encode(form.start) == tokenizer.encode(form.end):
        yield "start and end are the same tokens"
        return
    try:
        yield from _switches(checkpoint, form)
        for budget in (UNLIMITED, _FEW, 0):
            yield from _lives(checkpoint, form, budget)
    except TokenizerError as error:
        yield f"the chat template does not take its own switch: {error}"


def _switches(checkpoint: Checkpoint, form: ThoughtFormat) -> Iterator[str]:
    """Whether prompts are open, left to the model or closed as they should be."""
    tokenizer, traits = checkpoint.tokenizer, checkpoint.traits
    _, end = tail(tokenizer, HELLO, traits.on)
    if opening(form, end) == "closed":
        yield f"the chat template closes the thought although it was switched on: {end!r}"
    if traits.off is not None:
        _, end = tail(tokenizer, HELLO, traits.off)
        if opening(form, end) == "open":
            yield f"the chat template opens a thought although it was switched off: {end!r}"
    quiet = checkpoint.prompt(HELLO, Ask(budget=0), _LIMITS)
    end = tokenizer.spell(quiet.token_ids).rpartition(HELLO[-1]["content"])[2]
    left = opening(form, end)
    if left == "open" or (left == "model" and traits.off is None):
        yield f"a prompt with budget 0 does not close the thought: {end!r}"


def _lives(checkpoint: Checkpoint, form: ThoughtFormat, budget: int) -> Iterator[str]:
    """Whether a thought and an answer in the tokenizer's own tokens are read as they were."""
    prompt = checkpoint.prompt(HELLO, Ask(budget=budget), _LIMITS)
    assert prompt.form is not None
    if budget and not prompt.plan.budget:
        return  # the template closes it, as `_switches` says
    before, after = form.wrapper or ("", "")
    answer = f"{before}{_ANSWER}{after}"
    start = form.start if prompt.form.opened_by == "model" else ""
    whole = f"{start}{_THOUGHT}{form.end}\n{answer}"
    texts = (whole, answer) if prompt.plan.budget else (answer,)
    engine = ScriptedEngine(
        say(*texts, vocabulary=checkpoint.tokenizer),
        checkpoint.tokenizer,
        max_model_len=_LIMITS.max_model_len,
    )
    try:
        reply = asyncio.run(ask(checkpoint, engine, prompt, "proof"))
    except NoAnswerProduced as error:
        yield f"with budget {budget}: {error}"
        return
    thought, said = reply.thought.strip(), reply.answer.strip()
    short = budget == UNLIMITED or reply.outcome.thinking_tokens <= budget
    known = thought == _THOUGHT if budget == UNLIMITED else _THOUGHT.startswith(thought)
    clean = said == _ANSWER if budget == UNLIMITED else said.endswith(_ANSWER)
    if not (short and known and clean):
        yield (
            f"with budget {budget}, {whole!r} is read as the thought {thought!r} and the answer "
            f"{said!r}: its markers do not survive this tokenizer"
        )
