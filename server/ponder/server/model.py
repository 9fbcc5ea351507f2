"""The served model: checks what requests ask of a checkpoint, and makes prompts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from ponder.checkpoint.chat import Prompt
from ponder.checkpoint.checkpoint import Checkpoint
from ponder.engine.protocol import EngineFacts
from ponder.engine.tokenizer import HFTokenizer, ModelFiles, TokenizerError
from ponder.errors import PonderError, SetupError
from ponder.protocol.chat import ChatRequest, Raw, ToolUse, Turns
from ponder.protocol.errors import ApiError, invalid_request, quoted, to_api_error
from ponder.protocol.fields import PonderOptions
from ponder.protocol.logprobs import TokenTexts
from ponder.protocol.response import Capabilities
from ponder.protocol.tools import described
from ponder.server.arguments import settable, switched
from ponder.server.early import early_exits
from ponder.server.settings import Settings
from ponder.server.strategies.table import strategies
from ponder.thought.budget import AUTO, EFFORT_TOKENS, UNLIMITED, Ask, Limits, Plan
from ponder.thought.curve import Curves
from ponder.thought.errors import ReasoningUnsupported
from ponder.thought.exits.deadline import Due
from ponder.thought.exits.exit import Exit
from ponder.thought.exits.loop import AFTER, Loop
from ponder.thought.format import Close
from ponder.thought.segment import AnswerRules

UNCALIBRATED = (
    "needs a calibrated budget curve, which this model has not: let `ponder calibrate MODEL` write "
    "one into its ponder.json"
)


@dataclass(frozen=True)
class ServedModel:
    """A checkpoint under a name, with the options that its operator allows.

    Without `auto`, the budget "auto" means no limit.
    """

    name: str
    checkpoint: Checkpoint
    closes: Mapping[str, Close] = field(default_factory=dict)
    hints: bool = True
    loop_exit: bool = True
    auto: bool = True

    @classmethod
    def load(cls, files: ModelFiles, settings: Settings) -> ServedModel:
        """Load the checkpoint; compile the close texts.

        Raises, all at start-up, `ContractError`, `TokenizerError`, `InvalidCloseText`, and
        `SetupError` for a default budget "auto" without a calibrated curve.
        """
        checkpoint = Checkpoint.load(files)
        if settings.default_budget == "auto" and checkpoint.curves is None:
            raise SetupError(f"--default-budget auto {UNCALIBRATED}, or name a number of tokens")
        allowed = settings.allowed_close_text if checkpoint.form is not None else ()
        return cls(
            name=settings.served_model_name or files.label,
            checkpoint=checkpoint,
            closes={text: checkpoint.closing(text) for text in allowed},
            hints=settings.hint,
            loop_exit=settings.loop_exit,
        )

    @property
    def tokenizer(self) -> HFTokenizer:
        return self.checkpoint.tokenizer

    def check_served(self, model: str) -> None:
        """Raise 404 for a model of another name."""
        if model != self.name:
            raise ApiError(
                404,
                "model_not_found",
                f"the model {quoted(model)} is not served here: ask for {self.name!r}",
                field="model",
            )

    def prompts(
        self,
        request: ChatRequest,
        limits: Limits,
        rules: AnswerRules | None = None,
        due: Due | None = None,
    ) -> list[Prompt]:
        """Render or encode every prompt and decide the plans of their thoughts.

        `rules` hold for the answers, and `due` is their deadline. Raises `ApiError` and the errors
        of `resolve`.
        """
        held = rules is not None and rules.grammar is not None
        calls = rules is not None and rules.calls is not None
        self._check_thinking_options(request.ponder)
        self.check_token_ids("stop_token_ids", request.rules.stop_token_ids)
        self.check_token_ids("logit_bias", request.sampling.logit_bias or ())
        least = request.rules.min_tokens
        prompts = []
        for asked in request.prompts:
            if isinstance(asked, Turns):
                prompt = self._chat_prompt(asked, request, limits, due, held=held, calls=calls)
            else:
                prompt = self._raw_prompt(asked, request, limits, held)
            if least > prompt.plan.allowance:
                raise invalid_request(
                    f"min_tokens {least} is above the {prompt.plan.allowance} tokens that the "
                    f"prompt leaves of the context: lower it or shorten the `prompt`",
                    "min_tokens",
                )
            prompts.append(prompt)
        return prompts

    def _calibrated(self, ask: Ask, request: ChatRequest, limits: Limits) -> tuple[Ask, Limits]:
        """Replace `auto` and efforts in the ask and the limits by budgets of the task's curve.

        Without a curve an effort keeps its own number. Raises 400 for `auto` without a curve, and
        for a `ponder.task` that the curves do not know.
        """
        curves = self.curves
        if curves is None:
            if ask.budget != AUTO:
                return ask, limits
            if self.checkpoint.form is None:  # that error says more, and what to do
                return replace(ask, budget=None, thinks=True), limits
            instead = "or send a number of tokens as thinking_token_budget"
            message = f'`budget` "auto" {UNCALIBRATED}, {instead}'
            raise ApiError(400, "auto_uncalibrated", message, field="budget")
        named = request.ponder.task
        if named is not None and named not in curves.tasks:
            raise invalid_request(
                f"ponder.task {quoted(named)} was not calibrated: this model knows "
                f"{', '.join(curves.tasks)}; leave it out for the curve of them all",
                "task",
            )
        curve = curves.curve(named or request.label)
        auto = curve.auto if self.auto else UNLIMITED
        if ask.budget == AUTO:
            ask = replace(ask, budget=auto)
        elif ask.source == "effort" and ask.effort is not None:
            ask = replace(ask, budget=curve.effort(ask.effort))
        if limits.default == AUTO:
            limits = replace(limits, default=auto)
        return ask, limits

    @cached_property
    def curves(self) -> Curves | None:
        """The contract's calibrated curves; None without calibration."""
        return self.checkpoint.curves

    def _chat_prompt(
        self,
        asked: Turns,
        request: ChatRequest,
        limits: Limits,
        due: Due | None,
        *,
        held: bool,
        calls: bool,
    ) -> Prompt:
        """`held`: a grammar holds the answer, so that the model cannot shorten it.

        `calls`: the answer may call functions.
        """
        wanted = request.ponder.hint
        ask, arguments = switched(self.checkpoint, request.ask, asked.arguments)
        arguments = {**settable(self.checkpoint, arguments), **self.told(request.tools)}
        try:
            ask, limits = self._calibrated(ask, request, limits)
            return self.checkpoint.prompt(
                asked.turns,
                replace(ask, formed=held),
                limits,
                close=self._close(request.ponder.close_text, calls=calls),
                bare=held,
                calls=calls,
                arguments=arguments,
                hinted=self.hints if wanted is None else wanted,
                due=due,
            )
        except TokenizerError as error:
            raise invalid_request(str(error), "prompt") from error
        except PonderError as error:
            refused = to_api_error(error)
            if refused is None or ask.spelled == request.ask.spelled:
                raise
            raise refused.renamed("budget", ask.spelled) from error

    def told(self, tools: ToolUse | None) -> Mapping[str, Any]:
        """The template's arguments for the tools. Raises 400 where it shows the model none."""
        if tools is None:
            return {}
        if not self.tokenizer.takes_tools:
            if tools.choice == "none":
                return {}
            raise ApiError(
                400,
                "tools_unsupported",
                "this model's chat template tells it of no tools: leave `tools` out",
                field="tools",
            )
        empty = self.tokenizer.needs_descriptions
        return {"tools": [described(tool, empty=empty) for tool in tools.tools]}

    def _raw_prompt(self, asked: Raw, request: ChatRequest, limits: Limits, held: bool) -> Prompt:
        options = request.ponder
        if options.hint:
            raise invalid_request(
                "ponder.hint: a raw prompt stays as it is; leave it out, or write the hint into "
                "the prompt",
                "hint",
            )
        if not isinstance(asked.content, str):
            self.check_token_ids("prompt", asked.content)
        ask, limits = self._calibrated(request.ask, request, limits)
        prompt = self.checkpoint.raw_prompt(
            asked.content,
            replace(ask, formed=held),
            limits,
            opened=asked.opened,
            special_tokens=asked.special_tokens,
            close=self._close(options.close_text),
            bare=held,
            plain_tokens=asked.plain_tokens,
        )
        if not prompt.token_ids:
            raise invalid_request("prompt holds no token: send at least one", "prompt")
        if request.echo and not prompt.verbatim:
            raise invalid_request(
                "echo: this prompt opens a thought, and so the answer does not directly follow it; "
                "leave it out",
                "echo",
            )
        if prompt.verbatim and (name := _of_thought(options)):
            raise ReasoningUnsupported(
                f"ponder.{name}: this prompt opens no thought; open one, or leave it out", name
            )
        return prompt

    def exits(self, options: PonderOptions, plan: Plan, due: Due | None = None) -> list[Exit]:
        """The exits of a thought of this plan beside its budget and its early exit."""
        wanted = self.loop_exit if options.loop_exit is None else options.loop_exit
        exits: list[Exit] = [Loop(max(AFTER, options.min_thinking_tokens))] if wanted else []
        return exits if due is None else [*exits, due.exit(plan)]

    def capabilities(
        self,
        limits: Limits,
        facts: EngineFacts,
        default_deadline_ms: int | None = None,
        *,
        verifier: bool = False,
    ) -> Capabilities:
        checkpoint = self.checkpoint
        form, compiled = checkpoint.form, checkpoint.compiled
        contract, curves = checkpoint.contract, self.curves
        auto = curves.pooled.auto if curves else None
        return Capabilities(
            thinks=form is not None,
            format=form.name if form else None,
            default_budget=auto if auto is not None and limits.default == AUTO else limits.default,
            budget_ceiling=limits.ceiling,
            trained_budgets=list(contract.trained_budgets) if contract else [],
            budget_hint=form.hint if form and compiled and compiled.hints else None,
            budget_argument=checkpoint.traits.tells,
            loop_exit=form is not None and self.loop_exit,
            default_deadline_ms=default_deadline_ms,
            early_exits=early_exits(facts) if form is not None else [],
            strategies=strategies(verifier=verifier) if form is not None else [],
            tools=facts.calling is not None and self.tokenizer.takes_tools,
            formats=facts.check is not None,
            close_text=form.close_text if form else None,
            answer_prefix=(form.answer_prefix or None) if form else None,
            allowed_close_texts=list(self.closes),
            efforts=curves.pooled.efforts if curves else EFFORT_TOKENS,
            auto_budget=auto,
            tasks=list(curves.tasks) if curves else [],
            switch=sorted(checkpoint.traits.switches),
            unread=checkpoint.unread,
        )

    @cached_property
    def token_texts(self) -> TokenTexts:
        """The text of every token, as replies write it."""
        return TokenTexts(self.tokenizer.token_bytes)

    def _close(self, text: str | None, *, calls: bool = False) -> Close | None:
        """The close text that a request names; None for the model's own."""
        compiled = self.checkpoint.compiled
        if text is None or compiled is None:
            return None
        if calls and compiled.call_close is not None:
            raise invalid_request(
                "ponder.close_text: this model closes a thought in another way where a call may "
                "follow; leave it out, or leave `tools` out",
                "close_text",
            )
        if text not in self.closes:
            raise ApiError(
                403,
                "option_not_allowed",
                "this close_text is not among those the operator allows (--allowed-close-text); "
                "/v1/models lists them",
                field="close_text",
            )
        return self.closes[text]

    def check_token_ids(self, name: str, ids: Iterable[int]) -> None:
        """Raise 400 for tokens that the model does not have.

        The engine may see them only when the thought is over, which is too late.
        """
        known = self.tokenizer.size
        for token_id in ids:
            if token_id >= known:
                raise invalid_request(
                    f"{name} names token {token_id}, but this model has tokens 0 to {known - 1}: "
                    f"leave it out",
                    name,
                )

    def _check_thinking_options(self, options: PonderOptions) -> None:
        compiled = self.checkpoint.compiled
        if compiled is None and (name := _of_thought(options)):
            raise ReasoningUnsupported(self.checkpoint.without(f"ponder.{name}"), name)
        if options.hint and not self.checkpoint.can_hint:
            raise invalid_request(
                "ponder.hint needs a model that was trained on budget hints, or whose chat "
                "template tells it a budget; this one is told none: leave it out",
                "hint",
            )
        early, prefixed = options.early_exit, bool(compiled and compiled.close.prefix[0])
        if early and early.method == "entropy" and early.prefix is None and not prefixed:
            raise invalid_request(
                "ponder.early_exit: entropy is that of the first token of an answer, and this "
                "model's contract names no answer_prefix: send early_exit.prefix, such as 'The "
                "answer is'",
                "early_exit",
            )
        if options.min_thinking_tokens and compiled and compiled.end.token_id is None:
            raise invalid_request(
                "ponder.min_thinking_tokens needs an end marker that is a single token, which "
                "this model does not have: leave it out",
                "min_thinking_tokens",
            )


def _of_thought(options: PonderOptions) -> str | None:
    """The first option given that applies only to thoughts."""
    names = (
        *("min_thinking_tokens", "grace_tokens", "close_text", "loop_exit"),
        *("early_exit", "strategy"),
    )
    return next((name for name in names if getattr(options, name)), None)
