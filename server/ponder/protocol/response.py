"""`POST /v1/chat/completions`: the response, whole and in chunks; and what `/v1/models` lists."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Literal

from pydantic import BaseModel, computed_field

from ponder.thought.exits.causes import Cause

# Open, as OpenAI's own clients have them: a newer server may say a word that an older client does
# not know, and the rest of its reply is still good.
EndCauseName = Cause | str
FinishReason = Literal["stop", "length", "tool_calls"] | str
ArmName = Literal["policy", "holdout"] | str


class ShadowReport(BaseModel):
    """Why and after how many tokens an early exit that only watched would have closed a thought.

    `agrees`: the answer there is the answer that was given; null where there is none to compare.
    """

    end_cause: EndCauseName
    thinking_tokens: int
    agrees: bool | None


class StrategyAnswer(BaseModel):
    """What one of a strategy's thoughts came to, and the tokens that were spent in its place.

    `votes` counts the answers that equal it, itself among them; none for one that says nothing to
    vote for. `score` is the verifier's, null where it gave none. `error` is the code of what left
    it without an answer.
    """

    answer: str
    votes: int
    score: float | None = None
    end_cause: EndCauseName
    thinking_tokens: int
    forced_tokens: int
    answer_tokens: int
    retry_tokens: int
    probe_tokens: int
    error: str | None = None


class StrategyReport(BaseModel):
    """How `n` thoughts on a budget of `token_budget` thinking tokens gave one answer.

    `chosen` is its place among the `answers`, whose tokens add up to the choice's. `copies` counts
    thoughts that a copy of another replaced.
    """

    method: str
    n: int
    token_budget: int
    chosen: int
    copies: int = 0
    answers: list[StrategyAnswer]


class PonderReport(BaseModel):
    """What happened to one choice's thought. Tokens, exact, from token ids.

    completion = thinking + forced + answer + retry + probe. Sampled markers and EOS count as
    answer, the appended close as forced. `hint_budget` is what the model was told (soft) in front
    of `budget_effective` (hard); the hint's tokens are the prompt's. `arm` is the one that the
    conversation was drawn into, also where the request opted out of being held out. `deadline_met`
    says whether the answer came in time, where it had a deadline. `error` is the code of what left
    this choice without an answer while others have one. `shadow` is there where an early exit only
    watched, and `strategy` where several thoughts gave the answer: the tokens are those of all.
    """

    budget_requested: int | None
    budget_effective: int
    budget_source: str
    hint_budget: int | None = None
    thinking_tokens: int
    forced_tokens: int
    answer_tokens: int
    retry_tokens: int
    probe_tokens: int = 0
    end_cause: EndCauseName
    answer_forced: bool
    deadline_met: bool | None = None
    confidence: float | None = None
    arm: ArmName = "policy"
    error: str | None = None
    shadow: ShadowReport | None = None
    strategy: StrategyReport | None = None


class InterimReport(BaseModel):
    """What choice `index` would answer if its thought ended after `thinking_tokens`.

    The last `agreement` interim answers of the choice are equal.
    """

    type: Literal["interim"] = "interim"
    index: int
    answer: str
    thinking_tokens: int
    agreement: int


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
    """`arguments` is JSON text, which a limit may have cut."""

    name: str
    arguments: str


class ToolCall(BaseModel):
    id: str
    type: Literal["function"] = "function"
    function: CalledFunction


class ResponseMessage(BaseModel):
    """`reasoning_content` repeats `reasoning` for older clients. `content` is null where the answer
    is calls alone.
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
    """`prompt_tokens` once, however many choices; `completion_tokens` summed over them."""

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
    """What a finished completion cost."""

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
    """The first of a call has its `id` and its function's name; `arguments` add up."""

    index: int
    id: str | None = None
    type: Literal["function"] | None = None
    function: FunctionDelta


class Delta(BaseModel):
    """`reasoning_content` repeats `reasoning`, as in a whole message.

    `provider_specific_fields` repeats the choice's report in its last chunk: the litellm proxy
    passes on only chunks whose delta says something.
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
    """One server-sent event. With `stream_options.include_usage` the last has no choices, and with
    `continuous_usage_stats` the others say what was spent until then. An interim answer comes in
    `ponder`, without choices.
    """

    id: str
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    created: int
    model: str
    choices: list[ChunkChoice]
    usage: Usage | TokenCounts | None = None
    ponder: InterimReport | None = None


class Capabilities(BaseModel):
    """What a model can be asked for. Tokens; `default_budget` is -1 for no limit.

    `switch` names the arguments of the chat template that switch thinking. `unread` is the marker
    by which a model seems to think whose thoughts Ponder cannot read. `budget_hint` is the text
    that tells the model of one of `trained_budgets`. `efforts` and `auto_budget` are those of a
    request that names no task, by the calibrated curve where there is one; `auto_budget` is None
    where there is none, and `tasks` are those that have curves of their own. `loop_exit`: a thought
    that repeats itself is closed unless a request says otherwise. `default_deadline_ms` is when an
    answer is due unless a request says otherwise. `early_exits` are the methods by which probes
    close a thought, and `strategies` those by which several thoughts give one answer.
    `answer_prefix` begins the answers of closed thoughts, where the contract names it. `tools` may
    be called, and `formats` asked of an answer.
    """

    thinks: bool
    format: str | None
    switch: list[str] = []
    unread: str | None = None
    default_budget: int
    budget_ceiling: int | None
    trained_budgets: list[int]
    budget_hint: str | None = None
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
    """A model as OpenAI's clients know it, and as Anthropic's do."""

    id: str
    object: Literal["model"] = "model"
    type: Literal["model"] = "model"
    created: int
    owned_by: str = "ponder"
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
