"""Every system's spelling of a budget, as fields of a body. `ponder.protocol.budget` reads them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, StrictBool, model_validator

from ponder.protocol.fields import Name, NoEntries, PonderOptions, Strict, or_say

_MIXED = or_say(
    "this server never writes a thought into the content; leave it out, or hide the thought with "
    "include_reasoning: false"
)
_WISH = or_say("must be true, false, or an effort such as low")
_NO_PLUG_INS = or_say(
    "this server takes no arguments for plug-ins of the engine; leave it out, and send a budget as "
    "thinking_token_budget"
)
_NO_CODE = or_say(
    "this server runs no code of its clients; leave it out, and send a budget as "
    "thinking_token_budget"
)
Summary = Literal["auto", "concise", "detailed", "none"]


class Thinking(Strict):
    """Anthropic's spelling. `adaptive`, and Doubao's `auto`, leave the budget to the server."""

    type: Literal["enabled", "disabled", "adaptive", "auto"] | None = None
    budget_tokens: Any = None

    @model_validator(mode="after")
    def _one_decides(self) -> Thinking:
        if self.type in ("adaptive", "auto") and self.budget_tokens is not None:
            raise ValueError(
                f"type {self.type} leaves the budget to the server, and budget_tokens sets it: "
                f"leave budget_tokens out, or send type enabled"
            )
        return self


def _switch(given: Any) -> Any:
    """A bare `thinking: true` is its `type`."""
    if isinstance(given, bool):
        return {"type": "enabled" if given else "disabled"}
    return given


class Reasoning(Strict):
    """OpenRouter's and OpenAI's spelling. Thoughts are shown unchanged, without a `summary`."""

    effort: Name | None = None
    max_tokens: Any = None
    enabled: StrictBool | None = None
    exclude: StrictBool | None = None
    summary: Summary | None = None
    generate_summary: Summary | None = None


def _word(given: Any) -> Any:
    """An effort's word, also from litellm's `{effort, summary}`."""
    if not isinstance(given, dict):
        return given
    if given.keys() - {"effort", "summary", "generate_summary"}:
        raise ValueError("takes effort and summary alone: leave the rest out")
    return given.get("effort")


Effort = Annotated[Name | None, BeforeValidator(_word, json_schema_input_type=Any)]


class NvExt(Strict):
    """NVIDIA NIM's spelling."""

    max_thinking_tokens: Any = None


class ThinkingConfig(Strict):
    thinking_budget: Any = None
    thinking_level: Name | None = None
    include_thoughts: StrictBool | None = None


class Google(Strict):
    """Gemini's spelling."""

    thinking_config: ThinkingConfig = Field(default_factory=ThinkingConfig)


class CustomParams(Strict):
    """SGLang's spelling."""

    thinking_budget: Any = None


BUDGETS = (
    "thinking_token_budget",
    "budget",
    "thinking_budget",
    "max_thinking_tokens",
    "reasoning_budget",
    "thinking_budget_tokens",
)
"""The names of a budget in tokens at the top of a body."""


class BudgetFields(Strict):
    """Every system's name for a budget. Numbers are typed `Any` here; `read_ask` checks them."""

    thinking_token_budget: Any = None
    budget: Any = None
    thinking_budget: Any = None
    max_thinking_tokens: Any = None
    reasoning_budget: Any = None
    thinking_budget_tokens: Any = None
    enable_thinking: StrictBool | None = None
    think: Annotated[StrictBool | Name | None, _WISH] = None
    thinking: Annotated[
        Thinking | None,
        BeforeValidator(_switch, json_schema_input_type=Thinking | StrictBool | None),
    ] = None
    reasoning: Reasoning | None = None
    reasoning_effort: Effort = None
    nvext: NvExt | None = None
    google: Google | None = None
    custom_params: CustomParams | None = None
    custom_logit_processor: Annotated[None, _NO_CODE] = None
    vllm_xargs: Annotated[NoEntries | None, _NO_PLUG_INS] = None
    include_reasoning: StrictBool = True
    separate_reasoning: Annotated[Literal[True] | None, _MIXED] = None
    reasoning_format: Annotated[Literal["parsed", "auto", "deepseek", "hidden"] | None, _MIXED] = (
        None
    )
    ponder: PonderOptions = Field(default_factory=PonderOptions)

    @property
    def shows_reasoning(self) -> bool:
        excluded = self.reasoning is not None and self.reasoning.exclude
        kept = self.google is not None and self.google.thinking_config.include_thoughts is False
        hidden = self.reasoning_format == "hidden"
        return self.include_reasoning and not (excluded or kept or hidden)
