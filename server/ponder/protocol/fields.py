"""The common parts of bodies: the types of their fields, sampling, Ponder's own options.

Ponder refuses fields that it cannot honour and never ignores them; it accepts fields that change
nothing about the answer (`ponder.protocol.noise`). A null field counts as absent.
"""

from __future__ import annotations

import dataclasses
from functools import cache
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from ponder.protocol.sampling import SamplingAsk
from ponder.thought.segment import AnswerRules

# Every list and text has a limit; that of metadata is OpenAI's.
MOST_TOKEN_IDS = 4096
MOST_METADATA = 16
MOST_NAME = 512  # characters of a name
MOST_STOP = 1024  # characters of a stop string
MOST_TOKENS = 2**64
MOST_MILLISECONDS = 86_400_000  # a day
_SAMPLING = tuple(field.name for field in dataclasses.fields(SamplingAsk))


def whole(number: Any) -> Any:
    """100.0 is 100: languages with one kind of number write it so."""
    return int(number) if isinstance(number, float) and number.is_integer() else number


Whole = BeforeValidator(whole)
Tokens = Annotated[int, Field(ge=0, le=MOST_TOKENS, strict=True), Whole]
PositiveTokens = Annotated[int, Field(ge=1, le=MOST_TOKENS, strict=True), Whole]
Milliseconds = Annotated[int, Field(ge=1, le=MOST_MILLISECONDS, strict=True), Whole]
Choices = Annotated[int, Field(ge=1, le=128, strict=True), Whole]
Alternatives = Annotated[int, Field(ge=0, le=20, strict=True), Whole]
Temperature = Annotated[float, Field(ge=0, le=2, strict=True)]
TopP = Annotated[float, Field(gt=0, le=1, strict=True)]
TopK = Annotated[int, Field(ge=-1, lt=2**31, strict=True), Whole]
Seed = Annotated[int, Field(ge=-(2**63), lt=2**63, strict=True), Whole]
Penalty = Annotated[float, Field(ge=-2, le=2, strict=True)]
Bias = Annotated[float, Field(ge=-100, le=100, strict=True)]
TokenId = Annotated[int, Field(ge=0, lt=2**31, strict=True), Whole]
TokenKey = Annotated[int, Field(ge=0, lt=2**31)]  # JSON spells the keys of a map as texts
Name = Annotated[str, Field(max_length=MOST_NAME)]
Salt = Annotated[str, Field(min_length=1, max_length=MOST_NAME)]
Off = Literal[False] | None
Empty = Annotated[list[Any], Field(max_length=0)]
NoEntries = Annotated[dict[str, Any], Field(max_length=0)]


def at_most(most: int) -> BeforeValidator:
    """Checks a map's length before its entries: pydantic would list all their mistakes."""

    def check(given: Any) -> Any:
        if isinstance(given, dict) and len(given) > most:
            raise PydanticCustomError("too_long", "", {"max_length": most})
        return given

    return BeforeValidator(check)


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _null_is_absent(cls, given: Any) -> Any:
        """Drop null fields, and all unknown fields but the first: pydantic would list them all."""
        if not isinstance(given, dict):
            return given
        known, kept, told = _names(cls), {}, False
        for name, value in given.items():
            if value is not None and (name in known or not told):
                kept[name] = value
                told = told or name not in known
        return kept


@cache
def _names(model: type[BaseModel]) -> frozenset[str]:
    """The fields of a body, as clients spell them."""
    return frozenset(field.alias or name for name, field in model.model_fields.items())


class Lenient(Strict):
    """A part of the history. Clients keep fields of their own there, which are dropped."""

    model_config = ConfigDict(extra="ignore", json_schema_extra={"additionalProperties": True})


def or_say(message: str) -> WrapValidator:
    """A validator that answers every value outside the type with `message`, which has a remedy."""

    def check(value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
        try:
            return handler(value)
        except ValidationError:
            raise PydanticCustomError("not_supported", message) from None

    return WrapValidator(check)


BUDGET = or_say("must be a number of tokens, -1 for no limit, or auto")
NO_AUDIO = or_say("this server neither hears nor speaks yet; leave it out")


def _one_or_several(stop: Any) -> Any:
    if isinstance(stop, str):
        return [stop]
    if isinstance(stop, list):
        return stop
    raise ValueError("must be a string or a list of at most 16 strings")


Stop = Annotated[str, Field(max_length=MOST_STOP)]
Stops = Annotated[
    list[Stop],
    Field(max_length=16, fail_fast=True),
    BeforeValidator(_one_or_several, json_schema_input_type=Stop | list[Stop]),
]


class StreamOptions(Strict):
    include_usage: StrictBool = False
    continuous_usage_stats: StrictBool = False
    include_obfuscation: StrictBool | None = None


class EarlyExit(Strict):
    """Close a thought when probes show that its answer is settled, by `agreement` or `entropy`.

    Every `interval` tokens the model answers beside the running thought, greedily and after
    `prefix`, or else after the contract's answer prefix. `agreement` samples at most
    `max_probe_tokens` and closes when the last `window` answers are equal as `answer` reads them;
    `interim` shows the answers in the stream. `entropy` samples one token and closes when the
    moving variance of its entropy, by `alpha`, is below `delta`, after at least `window` probes
    (arXiv 2509.26522).
    """

    method: Literal["agreement", "entropy"]
    interval: Annotated[int, Field(ge=32, le=65536, strict=True), Whole] = 256
    window: Annotated[int, Field(ge=2, le=16, strict=True), Whole] = 3
    prefix: Annotated[str, Field(min_length=1, max_length=MOST_NAME)] | None = None
    max_probe_tokens: Annotated[int, Field(ge=1, le=256, strict=True), Whole] = 32
    answer: Literal["exact", "number", "letter"] = "exact"
    interim: StrictBool = False
    alpha: Annotated[float, Field(gt=0, le=1, strict=True)] = 0.2
    delta: Annotated[float, Field(gt=0, le=10, strict=True)] = 1e-3

    @model_validator(mode="after")
    def _of_its_method(self) -> EarlyExit:
        others = {
            "agreement": ("alpha", "delta"),
            "entropy": ("max_probe_tokens", "interim"),
        }[self.method]
        given = next((name for name in others if name in self.model_fields_set), None)
        if given is not None:
            raise ValueError(f"{given} means nothing to method {self.method}: leave it out")
        if self.max_probe_tokens > self.interval:
            raise ValueError(
                f"max_probe_tokens {self.max_probe_tokens} is above interval {self.interval}, and "
                f"probes would take more than the thought: lower max_probe_tokens or raise interval"
            )
        return self


class StrategyAsk(Strict):
    """Answer by `n` thoughts that share one budget of thinking tokens.

    `token_budget` is another name of the request's budget. `self_consistency` gives the answer
    that most thoughts reach, and `best_of` the one that the operator's verifier scores highest.
    `particles` probes the thoughts every `interval` tokens of each, for at most `max_probe_tokens`
    after `prefix`, and replaces some by copies of more promising ones. `answer` says how to compare
    answers.
    """

    method: Literal["best_of", "self_consistency", "particles"]
    n: Annotated[int, Field(ge=2, le=64, strict=True), Whole]
    token_budget: PositiveTokens | None = None
    answer: Literal["exact", "number", "letter", "json"] = "exact"
    interval: Annotated[int, Field(ge=32, le=65536, strict=True), Whole] = 256
    prefix: Annotated[str, Field(min_length=1, max_length=MOST_NAME)] | None = None
    max_probe_tokens: Annotated[int, Field(ge=1, le=256, strict=True), Whole] = 32

    @model_validator(mode="after")
    def _of_its_method(self) -> StrategyAsk:
        if self.method == "particles":
            return self
        others = ("interval", "prefix", "max_probe_tokens")
        given = next((name for name in others if name in self.model_fields_set), None)
        if given is not None:
            raise ValueError(f"{given} means nothing to method {self.method}: leave it out")
        return self


class PonderOptions(Strict):
    """Ponder's own options. Tokens throughout.

    `grace_tokens` is the last part of the budget, in which a cut waits for a line or sentence
    end. Only an explicit `min_answer_tokens` is a hard reserve. `hint` tells its budget to a model
    that can be told it; the hint's tokens count as prompt. Past `min_thinking_tokens`,
    `loop_exit` closes a thought that repeats itself, and `early_exit` one whose answer is settled.
    With a `strategy`, several thoughts give one answer. `deadline_ms` closes a thought in time for
    its answer, which is due that many milliseconds after the request came. `scope` names the
    conversation. `task` names the kind of question, whose calibrated curve gives efforts and
    `auto`. `holdout` "never" keeps the saving policy even where the conversation is held out.
    """

    min_thinking_tokens: Tokens = 0
    min_answer_tokens: PositiveTokens | None = None
    max_answer_tokens: PositiveTokens | None = None
    grace_tokens: Tokens | None = None
    close_text: str | None = None
    hint: StrictBool | None = None
    loop_exit: StrictBool | None = None
    early_exit: EarlyExit | None = None
    strategy: StrategyAsk | None = None
    deadline_ms: Milliseconds | None = None
    scope: Annotated[str, Field(min_length=1, max_length=MOST_NAME)] | None = None
    task: Annotated[str, Field(min_length=1, max_length=MOST_NAME)] | None = None
    holdout: Literal["auto", "never"] = "auto"

    @model_validator(mode="after")
    def _reserve_fits(self) -> PonderOptions:
        least, most = self.min_answer_tokens, self.max_answer_tokens
        if least is not None and most is not None and least > most:
            raise ValueError("min_answer_tokens is above max_answer_tokens: lower it")
        return self


class SamplingFields(Strict):
    """The number of choices, their sampling, and the form of the reply."""

    max_tokens: PositiveTokens | None = None
    n: Choices = 1
    stream: StrictBool = False
    stream_options: StreamOptions | None = None

    temperature: Temperature | None = None
    top_p: TopP | None = None
    top_k: TopK | None = None
    min_p: Annotated[float, Field(ge=0, le=1, strict=True)] | None = None
    presence_penalty: Penalty = 0.0
    frequency_penalty: Penalty = 0.0
    repetition_penalty: Annotated[float, Field(gt=0, le=10, strict=True)] | None = None
    seed: Seed | None = None
    stop: Stops = Field(default_factory=list)
    stop_token_ids: Annotated[list[TokenId], Field(max_length=MOST_TOKEN_IDS, fail_fast=True)] = (
        Field(default_factory=list)
    )
    min_tokens: Tokens = 0
    ignore_eos: StrictBool = False
    cache_salt: Salt | None = None
    logit_bias: Annotated[dict[TokenKey, Bias], at_most(MOST_TOKEN_IDS)] | None = None

    @model_validator(mode="after")
    def _consistent_sampling(self) -> Self:
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options needs stream: true")
        if any(not stop for stop in self.stop):
            raise ValueError("stop must not hold an empty string: it would stop everything")
        return self

    def check_least(self, name: str, limit: int | None, ponder: PonderOptions) -> None:
        """Raise `ValueError` where `min_tokens` is above `limit`, whose name is `name`."""
        limits = {name: limit, "ponder.max_answer_tokens": ponder.max_answer_tokens}
        for what, most in limits.items():
            if most is not None and self.min_tokens > most:
                raise ValueError(f"min_tokens {self.min_tokens} is above {what} {most}: lower it")

    @property
    def sampling(self) -> SamplingAsk:
        return SamplingAsk(**{name: getattr(self, name) for name in _SAMPLING})

    @property
    def rules(self) -> AnswerRules:
        return AnswerRules(
            stop=tuple(self.stop),
            stop_token_ids=tuple(self.stop_token_ids),
            min_tokens=self.min_tokens,
        )

    @property
    def tells_usage(self) -> Literal["never", "last", "always"]:
        options = self.stream_options or StreamOptions()
        if not options.include_usage:
            return "never"
        return "always" if options.continuous_usage_stats else "last"
