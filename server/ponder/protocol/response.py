"""The responses of `POST /v1/chat/completions`, whole and in chunks, and of `/v1/models`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Literal

from pydantic import BaseModel, Field, computed_field

from ponder.thought.exits.causes import Cause

# Open types, as in OpenAI's own clients: a newer server may send a word that an older client does
# not know, and the rest of its reply is still good.
EndCauseName = Cause | str
FinishReason = Literal["stop", "length", "tool_calls"] | str
ArmName = Literal["policy", "holdout"] | str


class ShadowReport(BaseModel):
    """What an early exit in shadow mode would have done to a thought that it only watched."""

    end_cause: EndCauseName = Field(
        description="the cause for which it would have closed the thought"
    )
    thinking_tokens: int = Field(
        description="tokens of thought after which it would have closed it"
    )
    agrees: bool | None = Field(
        description="whether the answer there equals the given one; null where there is none to "
        "compare"
    )


class StrategyAnswer(BaseModel):
    """The answer of one of a strategy's thoughts, and the tokens that were spent in its place."""

    answer: str = Field(description="the answer's text")
    votes: int = Field(
        description="number of equal answers, itself included; 0 for an answer without a value to "
        "compare"
    )
    score: float | None = Field(
        default=None, description="the verifier's score from 0 to 1; null where it gave none"
    )
    end_cause: EndCauseName = Field(description="how the thought ended")
    thinking_tokens: int = Field(description="tokens of the thought")
    forced_tokens: int = Field(description="tokens that the server appended to close it")
    answer_tokens: int = Field(description="tokens of the answer")
    retry_tokens: int = Field(description="sampled tokens that a retry discarded")
    probe_tokens: int = Field(description="tokens that probes of the thought sampled")
    error: str | None = Field(
        default=None,
        description="code of the error that left the thought without an answer; else null",
    )


class StrategyReport(BaseModel):
    """How several thoughts gave one answer."""

    method: str = Field(description="the strategy")
    n: int = Field(description="number of thoughts")
    token_budget: int = Field(description="thinking tokens that the thoughts shared")
    chosen: int = Field(description="index in `answers` of the answer that was given")
    copies: int = Field(
        default=0, description="number of thoughts that a copy of another one replaced"
    )
    answers: list[StrategyAnswer] = Field(
        description="the answers of all thoughts; their tokens add up to the choice's"
    )


class PonderReport(BaseModel):
    """What happened to one choice's thought. Token counts are exact, from token ids.

    completion = thinking + forced + answer + retry + probe.
    """

    budget_requested: int | None = Field(
        description="thinking tokens that the request asks for, as a number, by an effort or by "
        "`auto`; -1 is no limit, and null says that the request names no budget"
    )
    budget_effective: int = Field(
        description="thinking tokens that the thought could use at most, or all thoughts of a "
        "strategy together: the least of what the request asks for and what every limit leaves"
    )
    budget_source: str = Field(description="the limit that set `budget_effective`")
    hint_budget: int | None = Field(
        default=None,
        description="budget that the server told the model, in tokens: a soft limit beside the "
        "hard `budget_effective`; null where it told none. The hint counts as prompt",
    )
    thinking_tokens: int = Field(description="tokens of the thought")
    forced_tokens: int = Field(description="tokens that the server appended to close the thought")
    answer_tokens: int = Field(
        description="tokens of the answer, with sampled markers and the end of the sequence"
    )
    retry_tokens: int = Field(
        description="sampled tokens that the server discarded because it asked for the answer again"
    )
    probe_tokens: int = Field(
        default=0, description="tokens that probes of the thought sampled, beside it"
    )
    end_cause: EndCauseName = Field(description="how the thought ended")
    answer_forced: bool = Field(
        description="whether the server appended the close of the thought, so that the model had "
        "to answer"
    )
    deadline_met: bool | None = Field(
        default=None,
        description="whether the answer came before its deadline; null where it had none",
    )
    arm: ArmName = Field(
        default="policy",
        description="arm of the request's conversation: `policy`, or `holdout`, which the server "
        "draws to go without the saving policy; also where the request opts out of the holdout",
    )
    error: str | None = Field(
        default=None,
        description="code of the error that left this choice without an answer while others have "
        "one; else null",
    )
    shadow: ShadowReport | None = Field(
        default=None,
        description="what an early exit in shadow mode would have done; null where it would not "
        "have closed the thought, or there was none",
    )
    strategy: StrategyReport | None = Field(
        default=None,
        description="how several thoughts gave the answer; the tokens above are those of all. "
        "Null for a single thought",
    )


class InterimReport(BaseModel):
    """What a choice would answer if its thought ended after `thinking_tokens`."""

    type: Literal["interim"] = "interim"
    index: int = Field(description="the choice's index")
    answer: str = Field(description="the answer's text")
    thinking_tokens: int = Field(description="tokens of the thought until there")
    agreement: int = Field(description="number of the choice's last interim answers that are equal")


class TopLogprob(BaseModel):
    token: str
    logprob: float
    bytes: list[int]


class TokenLogprobEntry(TopLogprob):
    top_logprobs: list[TopLogprob]


class ChoiceLogprobs(BaseModel):
    """Log probabilities of the sampled answer tokens."""

    content: list[TokenLogprobEntry]


class CalledFunction(BaseModel):
    """`arguments` is JSON text, which a limit may have truncated."""

    name: str
    arguments: str


class ToolCall(BaseModel):
    id: str
    type: Literal["function"] = "function"
    function: CalledFunction


class ResponseMessage(BaseModel):
    """`reasoning_content` repeats `reasoning` for older clients. `content` is null if the answer
    has only calls.
    """

    role: Literal["assistant"] = "assistant"
    content: str | None
    reasoning: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[ToolCall] | None = None


class Choice(BaseModel):
    index: int
    message: ResponseMessage
    logprobs: ChoiceLogprobs | None = None
    finish_reason: FinishReason
    ponder: PonderReport


class CompletionTokensDetails(BaseModel):
    reasoning_tokens: int


class PromptTokensDetails(BaseModel):
    cached_tokens: int


class TokenCounts(BaseModel):
    """`prompt_tokens` counts the prompt once; `completion_tokens` is the sum over the choices."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int

    @classmethod
    def of(cls, prompt: int, completion: int) -> TokenCounts:
        return TokenCounts(
            prompt_tokens=prompt,
            completion_tokens=completion,
            total_tokens=prompt + completion,
        )


class Usage(TokenCounts):
    """The tokens of a finished completion."""

    completion_tokens_details: CompletionTokensDetails
    prompt_tokens_details: PromptTokensDetails


class ChatCompletion(BaseModel):
    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[Choice]
    usage: Usage


class DeltaReport(BaseModel):
    ponder: PonderReport


class FunctionDelta(BaseModel):
    name: str | None = None
    arguments: str = ""


class CallDelta(BaseModel):
    """A part of a call: the first one has `id` and the function's name; `arguments` concatenate."""

    index: int
    id: str | None = None
    type: Literal["function"] | None = None
    function: FunctionDelta


class Delta(BaseModel):
    """`reasoning_content` repeats `reasoning`, as in a whole message.

    `provider_specific_fields` repeats the choice's report in its last chunk: the litellm proxy
    drops chunks whose delta is empty.
    """

    role: Literal["assistant"] | None = None
    content: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[CallDelta] | None = None
    provider_specific_fields: DeltaReport | None = None


class ChunkChoice(BaseModel):
    """`finish_reason` and `ponder` come in a choice's last chunk."""

    index: int
    delta: Delta
    logprobs: ChoiceLogprobs | None = None
    finish_reason: FinishReason | None = None
    ponder: PonderReport | None = None


class ChatCompletionChunk(BaseModel):
    """One server-sent event. With `stream_options.include_usage` the last one has the usage and no
    choices; with `continuous_usage_stats` the others have the usage so far. An interim answer comes
    in `ponder`, without choices.
    """

    id: str
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    created: int
    model: str
    choices: list[ChunkChoice]
    usage: Usage | TokenCounts | None = None
    ponder: InterimReport | None = None


class Capabilities(BaseModel):
    """What a request can ask of a model. Tokens; `default_budget` is -1 for no limit.

    `switch` names the arguments of the chat template that switch thinking. `unread` is the marker
    of a model that seems to think, but whose thoughts Ponder cannot read. `budget_hint` is the text
    that tells the model one of `trained_budgets`, and `budget_argument` the chat template's
    argument that tells it any budget. `efforts` and `auto_budget` hold for a request
    that names no task, by the calibrated curve if there is one; without one, `auto_budget` is None.
    `tasks` are the tasks that have curves of their own. With `loop_exit`, the server closes a
    thought that repeats itself unless a request says otherwise. `default_deadline_ms` is when an
    answer is due unless a request says otherwise. `early_exits` are the methods by which probes
    close a thought, and `strategies` those by which several thoughts give one answer.
    `answer_prefix` begins the answers of closed thoughts, if the contract has one. `tools` and
    `formats` say whether requests may have tools and formats.
    """

    thinks: bool
    format: str | None
    switch: list[str] = []
    unread: str | None = None
    default_budget: int
    budget_ceiling: int | None
    trained_budgets: list[int]
    budget_hint: str | None = None
    budget_argument: str | None = None
    loop_exit: bool = False
    default_deadline_ms: int | None = None
    early_exits: list[str] = []
    strategies: list[str] = []
    answer_prefix: str | None = None
    tools: bool = False
    formats: bool = False
    close_text: str | None
    allowed_close_texts: list[str]
    efforts: dict[str, int]
    auto_budget: int | None = None
    tasks: list[str] = []


class ModelCard(BaseModel):
    """A model in the form that OpenAI's and Anthropic's clients read."""

    id: str
    object: Literal["model"] = "model"
    type: Literal["model"] = "model"
    created: int
    owned_by: str = "ponder"
    lifecycle: Literal["active"] | str = "active"
    max_model_len: int
    ponder: Capabilities

    @computed_field  # type: ignore[prop-decorator]
    @property
    def display_name(self) -> str:
        return self.id

    @computed_field  # type: ignore[prop-decorator]
    @property
    def created_at(self) -> datetime:
        return datetime.fromtimestamp(self.created, UTC)


class ModelList(BaseModel):
    object: Literal["list"] = "list"
    data: list[ModelCard]
    has_more: bool = False

    @computed_field  # type: ignore[prop-decorator]
    @property
    def first_id(self) -> str | None:
        return self.data[0].id if self.data else None

    @computed_field  # type: ignore[prop-decorator]
    @property
    def last_id(self) -> str | None:
        return self.data[-1].id if self.data else None
