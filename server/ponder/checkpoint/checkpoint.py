"""A model directory without its weights: how its model is asked, and how it thinks.

The server, rollouts, evaluation and the study load it and make their prompts here, so that all of
them ask a model in the same way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from ponder.engine.protocol import Sampling
from ponder.engine.tokenizer import GoesOn, HFTokenizer, ModelFiles
from ponder.thought.budget import UNLIMITED, Ask, Limits, Plan, no_room, resolve
from ponder.thought.contract import Contract
from ponder.thought.errors import ReasoningUnsupported
from ponder.thought.exits.exit import Exit
from ponder.thought.families import of_contract, recognise
from ponder.thought.format import Close, CompiledFormat, Hint, ThoughtFormat
from ponder.thought.segment import AnswerRules
from ponder.thought.thought import Thought

Messages = Sequence[Mapping[str, Any]]

HELLO = [{"role": "user", "content": "Hello"}]


@dataclass(frozen=True)
class Prompt:
    """Where the model goes on from. `shown` is prompt text that belongs to the answer.

    `hint` is what `token_ids` end with, in a thought that was told its budget. `form` is how the
    thought goes on: what the prompt opens, the model does not. A `verbatim` prompt is continued as
    it stands, with neither a thought nor an answer.
    """

    token_ids: list[int]
    plan: Plan
    form: CompiledFormat | None
    close: Close | None
    shown: str = ""
    hint: Hint | None = None
    verbatim: bool = False


@dataclass(frozen=True)
class Checkpoint:
    """Files, tokenizer and form of a model; `form` is None for one that does not think.

    `contract` is None where there is no `ponder.json`: the chat template tells the family then.

        >>> from ponder.server.settings import BUNDLED_MODEL
        >>> checkpoint = Checkpoint.load(ModelFiles.find(BUNDLED_MODEL))
        >>> question = [{"role": "user", "content": "2 + 2?"}]
        >>> prompt = checkpoint.prompt(question, Ask(budget=64), Limits(max_model_len=1024))
        >>> prompt.plan.budget, prompt.plan.source
        (64, 'request')
        >>> thought = checkpoint.thought(prompt, Sampling(max_tokens=0))
    """

    files: ModelFiles
    tokenizer: HFTokenizer
    form: ThoughtFormat | None
    compiled: CompiledFormat | None
    contract: Contract | None = None

    @classmethod
    def load(cls, files: ModelFiles) -> Checkpoint:
        """Raises `ContractError`, `TokenizerError`, `InvalidCloseText`."""
        tokenizer = HFTokenizer(files.directory)
        return cls.of(files, tokenizer, Contract.load(files.directory))

    @classmethod
    def of(cls, files: ModelFiles, tokenizer: HFTokenizer, contract: Contract | None) -> Checkpoint:
        """A checkpoint that keeps `contract`, whatever `ponder.json` says."""
        if contract is not None:
            form: ThoughtFormat | None = of_contract(contract)
        else:
            form = recognise(tokenizer.chat_template)
        compiled = None
        if form is not None:
            opened = tokenizer.render(HELLO, form.think).rstrip().endswith(form.start)
            compiled = CompiledFormat.of(form, "template" if opened else "model", tokenizer)
        return cls(files, tokenizer, form, compiled, contract)

    @property
    def can_hint(self) -> bool:
        """The model was trained on budget hints, and its template opens the thought."""
        return self.compiled is not None and bool(self.compiled.hints)

    def closing(self, text: str) -> Close:
        """Another close text in this model's tokens. Raises `InvalidCloseText`."""
        assert self.form is not None and self.compiled is not None
        return Close.of(text, self.compiled.end, self.form.answer_prefix, self.tokenizer)

    def prompt(
        self,
        messages: Messages,
        ask: Ask,
        limits: Limits,
        *,
        arguments: Mapping[str, Any] | None = None,
        close: Close | None = None,
        hinted: bool = False,
        opening: str = "",
    ) -> Prompt:
        """Render the chat, decide the thought's plan and put what it needs behind the chat.

        `arguments` are the template's. `close` replaces the model's own. `hinted` tells the model
        its budget, where there is one that was trained. `opening` is what the thought starts with.
        Raises `TokenizerError` and the errors of `resolve`.
        """
        given, form, most = arguments or {}, self.compiled, limits.max_model_len
        token_ids = asked = self.encode(messages, given, most)
        if form is None:
            plan = self.plan(ask, limits, len(token_ids))
            return Prompt(token_ids, plan, None, None)
        if opening:
            token_ids = [*token_ids, *self._start_ids, *self.tokenizer.encode(opening)]
            form = replace(form, opened_by="template")
        closed = close or form.close
        plan = self.plan(ask, limits, len(token_ids), form=form, close=closed)
        if plan.budget:
            prompt = Prompt(token_ids, plan, form, closed)
            return self._hinted(prompt, ask, limits) if hinted else prompt
        switch, shown = self._no_think_arguments, ""
        if switch is not None and close is None:
            token_ids = self._encode(messages, {**given, **switch}, most)
        else:
            token_ids, shown = [*asked, *self._start_ids, *closed.ids], closed.shown
        # A closed thought stays closed, even where the closed prompt is the shorter one.
        closing = max(0, len(token_ids) - len(asked))
        plan = self.plan(
            ask,
            limits,
            len(token_ids) - closing,
            form=self.compiled,
            close=closed,
            closing_tokens=closing,
        )
        return Prompt(token_ids, replace(plan, budget=0), form, closed, shown)

    def raw_prompt(
        self,
        content: str | Sequence[int],
        ask: Ask,
        limits: Limits,
        *,
        opened: bool = False,
        special_tokens: bool = True,
        close: Close | None = None,
        plain_tokens: int | None = None,
    ) -> Prompt:
        """A text or token ids as their caller wrote them, and the plan of what follows.

        There is a thought where the caller opens it: by `opened`, or with a start marker at the
        very end. Elsewhere the prompt is continued verbatim, for at most `plain_tokens` where
        `ask` has no limit. Raises `ReasoningUnsupported` for a thought that nobody opens, and the
        errors of `resolve`.
        """
        if isinstance(content, str):
            token_ids = self._encode_text(content, limits.max_model_len, special_tokens)
        else:
            token_ids = list(content)
        if not (opened or self._ends_open(token_ids)):
            return self._plain_prompt(token_ids, ask, limits, plain_tokens)
        if self.compiled is None:
            raise ReasoningUnsupported(
                "this model does not think: leave ponder.thinking out", "thinking"
            )
        form = replace(self.compiled, opened_by="template")
        closed = close or form.close
        plan = self.plan(ask, limits, len(token_ids), form=form, close=closed)
        if plan.budget:
            return Prompt(token_ids, plan, form, closed)
        closing = len(closed.ids)
        plan = self.plan(
            ask, limits, len(token_ids), form=form, close=closed, closing_tokens=closing
        )
        token_ids = [*token_ids, *closed.ids]
        return Prompt(token_ids, replace(plan, budget=0), form, closed, closed.shown)

    def _plain_prompt(
        self, token_ids: list[int], ask: Ask, limits: Limits, plain_tokens: int | None
    ) -> Prompt:
        if self.compiled is not None and (ask.thinks or ask.budget):
            raise ReasoningUnsupported(
                f"a raw prompt has a thought only where it opens one: end it with "
                f"{self.compiled.start.text}, set ponder.thinking to 'open', or leave `budget` out",
                "budget",
            )
        if ask.max_completion_tokens is None:
            ask = replace(ask, max_completion_tokens=plain_tokens)
        return Prompt(token_ids, self.plan(ask, limits, len(token_ids)), None, None, verbatim=True)

    def _ends_open(self, token_ids: Sequence[int]) -> bool:
        """The last that a prompt says, but for blank, is the marker that starts a thought."""
        if self.compiled is None:
            return False
        start, end = self.compiled.start, len(token_ids)
        while end and self.tokenizer.token_bytes(token_ids[end - 1]).isspace():
            end -= 1
        if start.token_id is not None:
            return end > 0 and token_ids[end - 1] == start.token_id
        tail = token_ids[max(0, end - len(start.text.encode())) : end]
        return self.tokenizer.decode(tail).rstrip().endswith(start.text)

    def plan(
        self,
        ask: Ask,
        limits: Limits,
        prompt_tokens: int,
        *,
        form: CompiledFormat | None = None,
        close: Close | None = None,
        closing_tokens: int = 0,
    ) -> Plan:
        """The plan of a thought of this form; `closing_tokens` behind the prompt close it."""
        starts = self._start_ids if form is not None and form.opened_by == "model" else []
        return resolve(
            ask,
            limits,
            prompt_tokens=prompt_tokens,
            closing_tokens=closing_tokens,
            close_tokens=len(starts) + len(close.ids) if close else 0,
            thinks=form is not None,
        )

    def thought(
        self,
        prompt: Prompt,
        sampling: Sampling,
        rules: AnswerRules | None = None,
        *,
        exits: Sequence[Exit] = (),
        apart: bool = False,
    ) -> Thought:
        """The thought that follows a prompt, for a driver to live."""
        rules = rules or AnswerRules()
        return Thought(
            self.tokenizer,
            prompt.form,
            prompt=prompt.token_ids,
            plan=prompt.plan,
            sampling=sampling,
            rules=replace(rules, verbatim=True) if prompt.verbatim else rules,
            close=prompt.close,
            shown_prefix=prompt.shown,
            exits=exits,
            apart=apart,
        )

    def encode(
        self,
        messages: Messages,
        arguments: Mapping[str, Any] | None = None,
        most: int | None = None,
        *,
        goes_on: GoesOn = "assistant",
        special_tokens: bool = False,
    ) -> list[int]:
        """A chat's tokens, thinking switched on where the family has a switch.

        A chat that surely has more than `most` tokens is not encoded: `ContextLengthExceeded`.
        `goes_on` says who speaks next. Raises `TokenizerError`.
        """
        think = self.form.think if self.form else {}
        given = {**(arguments or {}), **think}
        text = self.tokenizer.render(messages, given, goes_on=goes_on)
        return self._encode_text(text, most, special_tokens)

    def _encode(
        self, messages: Messages, arguments: Mapping[str, Any], most: int | None
    ) -> list[int]:
        return self._encode_text(self.tokenizer.render(messages, arguments), most)

    def _encode_text(self, text: str, most: int | None, special_tokens: bool = False) -> list[int]:
        if most is not None and (roughly := self.tokenizer.beyond(text, most)) is not None:
            raise no_room(most, f"roughly {roughly}")
        return self.tokenizer.encode(text, special_tokens=special_tokens)

    def _hinted(self, prompt: Prompt, ask: Ask, limits: Limits) -> Prompt:
        """The prompt that tells the model its budget, where one was asked for or is the default.

        Where the context has no room for both the hint and what it says, there is no hint.
        """
        asked = limits.default if ask.budget is None else ask.budget
        hint = prompt.form.hint(prompt.plan.budget) if prompt.form else None
        if hint is None or asked == UNLIMITED or len(hint.ids) > prompt.plan.budget:
            return prompt
        token_ids = [*prompt.token_ids, *hint.ids]
        plan = self.plan(ask, limits, len(token_ids), form=prompt.form, close=prompt.close)
        if plan.budget < hint.budget:
            return prompt
        return replace(prompt, token_ids=token_ids, plan=plan, hint=hint)

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
