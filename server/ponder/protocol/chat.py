"""The neutral request: what every dialect is read into, and all that the server knows of one.

Errors call its fields by the names in `NAMES`, in backticks within a message; `ApiError.spelled`
puts the dialect's own there, and for `budget` the client's (`Ask.spelled`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from ponder.engine.protocol import Grammar, Tool
from ponder.protocol.fields import PonderOptions
from ponder.protocol.sampling import SamplingAsk
from ponder.thought.budget import Ask
from ponder.thought.segment import AnswerRules

NAMES: Mapping[str, str] = {
    **{name: f"ponder.{name}" for name in PonderOptions.model_fields},
    "prompt": "prompt",
    "tools": "tools",
    "tool_choice": "tool_choice",
    "format": "response_format",
    "template_arguments": "template_arguments",
    "max_completion_tokens": "max_completion_tokens",
    "alternatives": "alternatives",
}
"""Fields that errors speak of, and how a dialect spells them that has no name of its own."""


@dataclass(frozen=True, slots=True)
class Turns:
    """A conversation, which the model's chat template makes a prompt of.

    `turns` are as templates take them; `arguments` are variables that the request sets for it.
    """

    turns: Sequence[Mapping[str, Any]]
    arguments: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolUse:
    """The functions that an answer may call, and whether it has to.

    `named` is `required` of the one function that there is. `parallel` allows several calls.
    """

    tools: Sequence[Tool]
    choice: Literal["auto", "none", "required", "named"] = "auto"
    parallel: bool = True


@dataclass(frozen=True, slots=True)
class Raw:
    """A prompt as its caller wrote it: a text, or token ids.

    `opened` is the caller's word that the prompt ends inside a thought; without it, only a start
    marker at its very end says so. A prompt that opens no thought is continued for at most
    `plain_tokens`, where the request has no limit. `special_tokens` puts the tokenizer's own, such
    as BOS, around a text.
    """

    content: str | Sequence[int]
    opened: bool = False
    plain_tokens: int | None = None
    special_tokens: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatRequest:
    """What is asked for, in no dialect's words.

    Every prompt is answered `n` times: choice `p * n + j` is the j-th of prompt p. `id` is the
    reply's, `logprobs` the alternatives to tell beside each sampled token, or None, and `echo`
    puts each prompt before its answer. `usage` says
    when a stream tells what was spent, and `shows_interim` that it has events for interim answers.
    `conversation` names what the request belongs to, and `label` the task that its metadata tells,
    which `ponder.task` overrides. `grammar`
    is what an answer must spell that is no call. `spelled` has the client's own names of fields
    that its dialect knows by several.
    """

    id: str
    prompts: Sequence[Turns | Raw]
    model: str | None = None
    ask: Ask = field(default_factory=Ask)
    ponder: PonderOptions = field(default_factory=PonderOptions)
    sampling: SamplingAsk = field(default_factory=SamplingAsk)
    rules: AnswerRules = field(default_factory=AnswerRules)
    tools: ToolUse | None = None
    grammar: Grammar | None = None
    spelled: Mapping[str, str] = field(default_factory=dict)
    n: int = 1
    logprobs: int | None = None
    echo: bool = False
    shows_thought: bool = True
    stream: bool = False
    shows_interim: bool = False
    usage: Literal["never", "last", "always"] = "never"
    conversation: str | None = None
    label: str | None = None

    @property
    def choices(self) -> int:
        return len(self.prompts) * self.n
