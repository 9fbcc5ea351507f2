"""The served model: its tokenizer, how it thinks, and the prompts it is given."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from ponder.engine.tokenizer import HFTokenizer, ModelFiles, TokenizerError
from ponder.protocol.errors import ApiError, cut, invalid_request
from ponder.protocol.request import ChatCompletionRequest, Message, PonderOptions
from ponder.protocol.response import Capabilities
from ponder.server.logprobs import TokenTexts
from ponder.server.settings import Settings
from ponder.thought.budget import EFFORT_TOKENS, UNLIMITED, Ask, Limits, Plan, no_room, resolve
from ponder.thought.contract import Contract
from ponder.thought.errors import ReasoningUnsupported
from ponder.thought.format import (
    HELLO,
    Close,
    CompiledFormat,
    Hint,
    ThoughtFormat,
    opened_by,
    recognise,
)


@dataclass(frozen=True)
class Prompt:
    """Where the model goes on from. `shown` is prompt text that belongs to the answer.

    `hint` is what `token_ids` end with, in a thought that was told its budget.
    """

    token_ids: list[int]
    plan: Plan
    close: Close | None
    shown: str = ""
    hint: Hint | None = None


@dataclass(frozen=True)
class ServedModel:
    """Everything about a model but its engine. `form` is None for one that does not think."""

    name: str
    tokenizer: HFTokenizer
    form: ThoughtFormat | None
    compiled: CompiledFormat | None
    contract: Contract | None = None
    closes: Mapping[str, Close] = field(default_factory=dict)
    hints: bool = True

    @classmethod
    def load(cls, files: ModelFiles, settings: Settings) -> ServedModel:
        """Read the contract or recognise the family; compile the close texts.

        Raises `ContractError`, `TokenizerError`, `InvalidCloseText`: all of them at start-up.
        """
        tokenizer = HFTokenizer(files.directory)
        contract = Contract.load(files.directory)
        form = (
            ThoughtFormat.of_contract(contract)
            if contract is not None
            else recognise(tokenizer.chat_template)
        )
        compiled, closes = None, {}
        if form is not None:
            compiled = CompiledFormat.of(form, opened_by(form, tokenizer.render), tokenizer)
            closes = {
                text: Close.of(text, compiled.end, form.answer_prefix, tokenizer)
                for text in settings.allowed_close_text
            }
        return cls(
            name=settings.served_model_name or files.label,
            tokenizer=tokenizer,
            form=form,
            compiled=compiled,
            contract=contract,
            closes=closes,
            hints=settings.hint,
        )

    @property
    def can_hint(self) -> bool:
        """The model was trained on budget hints, and its template opens the thought."""
        return self.compiled is not None and bool(self.compiled.hints)

    def prompt(self, request: ChatCompletionRequest, ask: Ask, limits: Limits) -> Prompt:
        """Render the chat and decide the thought's plan.

        Raises `ApiError` and the errors of `resolve`.
        """
        prompt = self._prompt(request, ask, limits)
        if request.min_tokens > prompt.plan.allowance:
            raise invalid_request(
                f"min_tokens {request.min_tokens} is above the {prompt.plan.allowance} tokens "
                f"that the prompt leaves of the context: lower it or shorten the messages",
                "min_tokens",
            )
        return prompt

    def _prompt(self, request: ChatCompletionRequest, ask: Ask, limits: Limits) -> Prompt:
        self._check_thinking_options(request.ponder)
        self._check_token_ids("stop_token_ids", request.stop_token_ids)
        self._check_token_ids("logit_bias", request.logit_bias or ())
        close = self._close(request.ponder.close_text)
        messages = [_template_message(message) for message in request.messages]
        arguments = self._template_arguments(request.chat_template_kwargs or {})
        most = limits.max_model_len
        think = self.form.think if self.form else {}
        token_ids = asked = self._render(messages, {**arguments, **think}, most)
        plan = self._plan(ask, limits, token_ids, close)
        if plan.budget:
            return self._hinted(Prompt(token_ids, plan, close), request.ponder.hint, ask, limits)
        if self.form is None or self.compiled is None or close is None:
            return Prompt(token_ids, plan, close)
        switched = self._no_think_arguments
        if switched is not None and request.ponder.close_text is None:
            token_ids, shown = self._render(messages, {**arguments, **switched}, most), ""
        else:
            token_ids, shown = [*token_ids, *self._start_ids, *close.ids], close.shown
        # A closed thought stays closed, even where the closed prompt is the shorter one.
        closing = max(0, len(token_ids) - len(asked))
        plan = replace(self._plan(ask, limits, token_ids, close, closing), budget=0)
        return Prompt(token_ids, plan, close, shown)

    def capabilities(self, limits: Limits) -> Capabilities:
        return Capabilities(
            thinks=self.form is not None,
            format=self.form.name if self.form else None,
            default_budget=limits.default,
            budget_ceiling=limits.ceiling,
            trained_budgets=list(self.contract.trained_budgets) if self.contract else [],
            budget_hint=self.form.hint if self.form and self.can_hint else None,
            close_text=self.form.close_text if self.form else None,
            allowed_close_texts=list(self.closes),
            efforts=EFFORT_TOKENS,
        )

    def _hinted(self, prompt: Prompt, wanted: bool | None, ask: Ask, limits: Limits) -> Prompt:
        """The prompt that tells the model its budget, where one was asked for or is the default.

        Where the context has no room for both the hint and what it says, there is no hint.
        """
        asked = limits.default if ask.budget is None else ask.budget
        on = self.hints if wanted is None else wanted
        hint = self.compiled.hint(prompt.plan.budget) if self.compiled and on else None
        if hint is None or asked == UNLIMITED or len(hint.ids) > prompt.plan.budget:
            return prompt
        token_ids = [*prompt.token_ids, *hint.ids]
        plan = self._plan(ask, limits, token_ids, prompt.close)
        if plan.budget < hint.budget:
            return prompt
        return Prompt(token_ids, plan, prompt.close, hint=hint)

    def _plan(
        self,
        ask: Ask,
        limits: Limits,
        token_ids: list[int],
        close: Close | None,
        closing_tokens: int = 0,
    ) -> Plan:
        """`closing_tokens` of the prompt are there to close the thought."""
        return resolve(
            ask,
            limits,
            prompt_tokens=len(token_ids) - closing_tokens,
            closing_tokens=closing_tokens,
            close_tokens=len(self._start_ids) + len(close.ids) if close else 0,
            thinks=self.compiled is not None,
        )

    @cached_property
    def token_texts(self) -> TokenTexts:
        """Every token as replies write it."""
        return TokenTexts(self.tokenizer.token_bytes)

    @cached_property
    def _start_ids(self) -> list[int]:
        """What opens a thought where the template does not."""
        if self.compiled is None or self.compiled.opened_by == "template":
            return []
        return self.tokenizer.encode(self.compiled.start.text)

    @cached_property
    def _no_think_arguments(self) -> Mapping[str, Any] | None:
        """The template's own no-think switch, if turning it changes the prompt."""
        if self.form is None or self.form.no_think is None:
            return None
        off = self.tokenizer.render(HELLO, self.form.no_think)
        return self.form.no_think if off != self.tokenizer.render(HELLO, self.form.think) else None

    def _render(
        self, messages: list[dict[str, Any]], arguments: Mapping[str, Any], most: int
    ) -> list[int]:
        """A prompt's tokens. One that cannot have less than `most` is not encoded."""
        try:
            text = self.tokenizer.render(messages, arguments)
        except TokenizerError as error:
            raise invalid_request(str(error), "messages") from error
        roughly = self.tokenizer.beyond(text, most)
        if roughly is not None:
            raise no_room(most, f"roughly {roughly}")
        return self.tokenizer.encode(text)

    def _template_arguments(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """The variables of the template that a request sets.

        Whether there is a thought is the plan's to say: `enable_thinking` is read as a budget, and
        the family's other switches are refused. So is what apply_chat_template would take for
        something else: a template of the client's own is code.
        """
        form = self.form
        switches = {*form.think, *(form.no_think or {})} if form else set()
        free = self.tokenizer.template_variables - switches | {"enable_thinking"}
        for name in given:
            if name not in free:
                raise invalid_request(
                    f"chat_template_kwargs.{cut(name)} is not for a request to set: this model's "
                    f"template takes {', '.join(sorted(free))}; leave it out",
                    f"chat_template_kwargs.{name}",
                )
        return {name: value for name, value in given.items() if name != "enable_thinking"}

    def _close(self, text: str | None) -> Close | None:
        if self.compiled is None or text is None:
            return self.compiled.close if self.compiled else None
        if text not in self.closes:
            raise ApiError(
                403,
                "option_not_allowed",
                "this close_text is not among those the operator allows (--allowed-close-text); "
                "/v1/models lists them",
                param="ponder.close_text",
            )
        return self.closes[text]

    def _check_token_ids(self, name: str, ids: Iterable[int]) -> None:
        """Here and not in the engine, which may first see them once the thought is over."""
        known = self.tokenizer.size
        for token_id in ids:
            if token_id >= known:
                raise invalid_request(
                    f"{name} names token {token_id}, but this model has tokens 0 to {known - 1}: "
                    f"leave it out",
                    name,
                )

    def _check_thinking_options(self, options: PonderOptions) -> None:
        if self.compiled is None:
            asked = ("min_thinking_tokens", "grace_tokens", "close_text")
            for name in (f"ponder.{name}" for name in asked if getattr(options, name)):
                raise ReasoningUnsupported(f"{name}: this model does not think: leave it out", name)
        if options.hint and not self.can_hint:
            raise invalid_request(
                "ponder.hint needs a model that was trained on budget hints, which this one was "
                "not: leave it out",
                "ponder.hint",
            )
        if options.min_thinking_tokens and self.compiled and self.compiled.end.token_id is None:
            raise invalid_request(
                "ponder.min_thinking_tokens needs an end marker that is a single token, which "
                "this model does not have: leave it out",
                "ponder.min_thinking_tokens",
            )


def _template_message(message: Message) -> dict[str, Any]:
    """The message as chat templates know it; they have no `developer`."""
    role = "system" if message.role == "developer" else message.role
    turn: dict[str, Any] = {"role": role, "content": message.text}
    reasoning = message.reasoning or message.reasoning_content
    if message.role == "assistant" and reasoning:
        turn["reasoning_content"] = reasoning
    if message.name is not None:
        turn["name"] = message.name
    return turn
