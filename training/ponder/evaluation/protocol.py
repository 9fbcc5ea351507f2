"""The seam between an evaluation's questions and the responder that answers them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeVar

from ponder.errors import SetupError
from ponder.thought.budget import UNLIMITED
from ponder.thought.contract import FILE_NAME

Mode = Literal["natural", "efficient", "hinted", "truncated", "served"]
Hint = int | Literal["minimal", "served"] | None

MINIMAL_HINT = "I will answer the question with minimal tokens\n"
"""The opening of a thought in mode `efficient`; the cold start has learnt it."""

_AT_ONCE = 64

Item = TypeVar("Item")
Result = TypeVar("Result")


class ResponderError(SetupError):
    """The responder cannot answer; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Wording:
    """The chat's text around a question: a recipe's `system_prompt` and `instruction`.

    >>> Wording(instruction=" Think step by step.").messages("2+2?")
    [{'role': 'user', 'content': '2+2? Think step by step.'}]
    """

    system_prompt: str | None = None
    instruction: str = ""

    def messages(self, question: str) -> list[dict[str, str]]:
        """The chat that asks it."""
        told = [{"role": "system", "content": self.system_prompt}] if self.system_prompt else []
        return [*told, {"role": "user", "content": question + self.instruction}]


PLAIN = Wording()
"""The question alone."""


@dataclass(frozen=True, slots=True)
class Ask:
    """One thought to sample at temperature 1, and the budgets at which to answer it.

    `budgets` are thinking tokens at which the thought is cut, ascending, without repeats; -1, which
    leaves it whole, comes last. `hint` opens the thought: a number of tokens, "minimal", none, or
    "served" for the server's hint under each budget. The answer may call the `tools`.
    """

    question: str
    seed: int
    budgets: tuple[int, ...] = (UNLIMITED,)
    hint: Hint = None
    tools: Sequence[Mapping[str, Any]] = ()
    wording: Wording = PLAIN

    @property
    def messages(self) -> list[dict[str, str]]:
        """The chat that asks the question."""
        return self.wording.messages(self.question)


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer (the text after the thought, its calls written out as Qwen3 does), the tokens of
    the thought, and why the thought ended.

    `thinking_tokens` leaves the hint out; None where the server does not report it.
    `completion_tokens` are all sampled tokens of the reply, `answer_tokens` and `probe_tokens`
    parts of them; None where the responder does not count them.
    """

    text: str
    thinking_tokens: int | None
    end_cause: str
    completion_tokens: int | None = field(default=None, compare=False)
    answer_tokens: int | None = field(default=None, compare=False)
    probe_tokens: int | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Subject:
    """Who answers. `lacks` maps each mode that cannot be measured to what it needs."""

    model: str
    trained_budgets: tuple[int, ...] = ()
    contract_sha256: str | None = None
    lacks: Mapping[Mode, str] = field(default_factory=dict)


class Responder(Protocol):
    """Answers questions, many at once.

    `subject` is called first and loads no model. `answer` returns the replies to every ask,
    parallel to its budgets, and calls `advance` with the number of new replies whenever some have
    come. The replies to one ask share one thought, as far as the responder and the hint allow; the
    same question, hint and seed give the same thought. Both raise `ResponderError`.
    """

    async def subject(self) -> Subject: ...
    async def answer(
        self, asks: Sequence[Ask], advance: Callable[[int], object]
    ) -> list[list[Reply]]: ...
    async def close(self) -> None: ...


async def concurrently(
    work: Callable[[Item], Awaitable[Result]], items: Sequence[Item]
) -> list[Result]:
    """Run `work` on all items, 64 at a time. The first error cancels the rest and is raised."""
    gate = asyncio.Semaphore(_AT_ONCE)

    async def one(item: Item) -> Result:
        async with gate:
            return await work(item)

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(item)) for item in items]
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from failures
    return [task.result() for task in tasks]


def opening(hint: Hint, template: str | None) -> str:
    """The text of `hint` that opens a thought.

    A number goes into `template`, the contract's hint; "minimal" is the efficient prompt of HBPO's
    evaluation (arXiv 2507.15844). Raises `ResponderError` for a number without a template.
    """
    if not isinstance(hint, int):
        return MINIMAL_HINT if hint == "minimal" else ""
    if template is None:
        raise ResponderError(
            f"the checkpoint's {FILE_NAME} has no budget_hint: leave the mode hinted out"
        )
    return template.replace("{budget}", str(hint))  # as serving: other braces are its own
