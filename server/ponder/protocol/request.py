"""`POST /v1/chat/completions`: the request.

Fields that Ponder cannot honour are refused, never ignored; fields that change nothing about the
answer (`user`, `metadata`, an empty `tools`) are accepted.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool, model_validator

Tokens = Annotated[int, Field(ge=0, strict=True)]
PositiveTokens = Annotated[int, Field(ge=1, strict=True)]
TokenId = Annotated[int, Field(ge=0)]
Empty = Annotated[list[Any], Field(max_length=0)]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class TextPart(Strict):
    type: Literal["text"]
    text: str


class Message(Strict):
    """One turn. `reasoning` on an earlier assistant turn is handed to the chat template."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[TextPart] | None = None
    name: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    # What the official client writes back when a response message is sent as history.
    refusal: None = None
    annotations: Empty | None = None
    audio: None = None
    function_call: None = None
    tool_calls: Empty | None = None

    @model_validator(mode="after")
    def _only_assistants_are_silent(self) -> Message:
        if self.content is None and self.role != "assistant":
            raise ValueError(f"a {self.role} message needs content")
        return self

    @property
    def text(self) -> str:
        if isinstance(self.content, list):
            return "".join(part.text for part in self.content)
        return self.content or ""


class StreamOptions(Strict):
    include_usage: StrictBool = False
    include_obfuscation: Literal[False] | None = None


class TextFormat(Strict):
    type: Literal["text"]


class Thinking(Strict):
    """Anthropic's spelling."""

    type: Literal["enabled", "disabled"] | None = None
    budget_tokens: Any = None


class Reasoning(Strict):
    """OpenRouter's spelling."""

    effort: str | None = None
    max_tokens: Any = None
    enabled: StrictBool | None = None
    exclude: StrictBool | None = None


class NvExt(Strict):
    """NVIDIA NIM's spelling."""

    max_thinking_tokens: Any = None


class PonderOptions(Strict):
    """What Ponder adds. Tokens throughout.

    `grace_tokens` is the last part of the budget, in which a cut waits for a line or sentence
    end. Only an explicit `min_answer_tokens` is a hard reserve. `hint` tells a model that was
    trained on budgets of the one it has; its tokens count as prompt. `scope` names the
    conversation, and `holdout` "never" keeps the saving policy even where the conversation is held
    out.
    """

    min_thinking_tokens: Tokens = 0
    min_answer_tokens: PositiveTokens | None = None
    max_answer_tokens: PositiveTokens | None = None
    grace_tokens: Tokens | None = None
    close_text: str | None = None
    hint: StrictBool | None = None
    scope: Annotated[str, Field(min_length=1)] | None = None
    holdout: Literal["auto", "never"] = "auto"

    @model_validator(mode="after")
    def _reserve_fits(self) -> PonderOptions:
        least, most = self.min_answer_tokens, self.max_answer_tokens
        if least is not None and most is not None and least > most:
            raise ValueError("min_answer_tokens is above max_answer_tokens: lower it")
        return self


class ChatCompletionRequest(Strict):
    """The body. Budgets are typed `Any` here and read by `ponder.protocol.budget`."""

    model: str | None = None
    messages: Annotated[list[Message], Field(min_length=1)]

    thinking_token_budget: Any = None
    budget: Any = None
    thinking_budget: Any = None
    thinking: Thinking | None = None
    reasoning: Reasoning | None = None
    reasoning_effort: str | None = None
    nvext: NvExt | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    include_reasoning: StrictBool = True
    ponder: PonderOptions = Field(default_factory=PonderOptions)

    max_completion_tokens: PositiveTokens | None = None
    max_tokens: PositiveTokens | None = None
    n: Annotated[int, Field(ge=1, le=128, strict=True)] = 1
    stream: StrictBool = False
    stream_options: StreamOptions | None = None

    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=-1)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] = 0.0
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] = 0.0
    repetition_penalty: Annotated[float, Field(gt=0, le=10)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    stop: str | Annotated[list[str], Field(max_length=16)] | None = None
    stop_token_ids: list[TokenId] = Field(default_factory=list)
    min_tokens: Tokens = 0
    ignore_eos: StrictBool = False
    logit_bias: dict[TokenId, Annotated[float, Field(ge=-100, le=100)]] | None = None
    logprobs: StrictBool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None

    # Accepted because they change nothing about the answer.
    user: str | None = None
    metadata: dict[str, str] | None = None
    store: StrictBool | None = None
    service_tier: Literal["auto", "default"] | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    modalities: list[Literal["text"]] | None = None
    response_format: TextFormat | None = None
    tools: Empty | None = None
    tool_choice: Literal["none", "auto"] | None = None
    parallel_tool_calls: StrictBool | None = None

    @model_validator(mode="after")
    def _consistent(self) -> ChatCompletionRequest:
        if self.max_tokens is not None and self.max_completion_tokens not in (
            None,
            self.max_tokens,
        ):
            raise ValueError(
                "max_tokens and max_completion_tokens disagree: send max_completion_tokens alone"
            )
        if self.top_logprobs is not None and not self.logprobs:
            raise ValueError("top_logprobs needs logprobs: true")
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options needs stream: true")
        limit = self.completion_limit
        if limit is not None and self.min_tokens > limit:
            raise ValueError(
                f"min_tokens {self.min_tokens} is above max_completion_tokens {limit}: lower it"
            )
        switch = (self.chat_template_kwargs or {}).get("enable_thinking")
        if switch is not None and not isinstance(switch, bool):
            raise ValueError("chat_template_kwargs.enable_thinking must be true or false")
        if any(not stop for stop in self.stops):
            raise ValueError("stop must not hold an empty string: it would stop everything")
        return self

    @property
    def stops(self) -> tuple[str, ...]:
        if self.stop is None:
            return ()
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)

    @property
    def completion_limit(self) -> int | None:
        return self.max_completion_tokens or self.max_tokens

    @property
    def shows_reasoning(self) -> bool:
        excluded = self.reasoning is not None and self.reasoning.exclude
        return self.include_reasoning and not excluded
