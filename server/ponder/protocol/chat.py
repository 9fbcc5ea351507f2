"""The neutral request that every dialect reads: the server knows nothing else of a request.

Errors call its fields by the names in `NAMES`, in backticks within a message. `ApiError.spelled`
replaces them by the dialect's names, and `budget` by the client's (`Ask.spelled`).
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
"""Fields that errors name, and their spelling in a dialect without a name of its own."""


@dataclass(frozen=True, slots=True)
class Turns:
    """A conversation, which the model's chat template turns into a prompt.

    `turns` have the form that templates take; `arguments` are template variables that the request
    sets.
    """

    turns: Sequence[Mapping[str, Any]]
    arguments: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolUse:
    """The functions that an answer may call, and whether it has to.

    `named` requires a call of the only function in `tools`. `parallel` allows several calls.
    """

    tools: Sequence[Tool]
    choice: Literal["auto", "none", "required", "named"] = "auto"
    parallel: bool = True


@dataclass(frozen=True, slots=True)
class Raw:
    """A prompt as its caller wrote it: a text, or token ids.

    `opened` says that the prompt ends inside a thought; without it, only a start marker at its very
    end does. A prompt that opens no thought is continued for at most `plain_tokens`, where the
    request has no limit. `special_tokens` adds the tokenizer's own, such as BOS, around a text.
    """

    content: str | Sequence[int]
    opened: bool = False
    plain_tokens: int | None = None
    special_tokens: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatRequest:
    """A request in terms that no dialect owns.

    Every prompt is answered `n` times: choice `p * n + j` is the j-th of prompt p. `id` is the
    reply's. `logprobs` is the number of alternatives beside each sampled token, None for no log
    probabilities, and `echo` puts each prompt before its answer, or with `scores_only` in its
    place. `usage` says when a stream reports the usage, and `shows_interim` that it has events for
    interim answers. `conversation` names the request's conversation, and `label` the task in its
    metadata, which `ponder.task` overrides. An answer that is no call follows `grammar`. `spelled`
    has the client's names of fields for which its dialect has several.
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
    scores_only: bool = False
    shows_thought: bool = True
    stream: bool = False
    shows_interim: bool = False
    usage: Literal["never", "last", "always"] = "never"
    conversation: str | None = None
    label: str | None = None

    @property
    def choices(self) -> int:
        return len(self.prompts) * self.n
