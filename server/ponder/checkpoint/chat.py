"""Turns a chat into a prompt, with its thought open, left to the model, or closed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ponder.checkpoint.traits import Arguments, Messages, Opening, opening, tail
from ponder.engine.tokenizer import TokenizerError
from ponder.thought.budget import UNLIMITED, Ask, Limits, Plan
from ponder.thought.exits.deadline import Due
from ponder.thought.format import Close, CompiledFormat, Hint

if TYPE_CHECKING:
    from ponder.checkpoint.checkpoint import Checkpoint


@dataclass(frozen=True)
class Prompt:
    """The prompt that the model continues. `shown` is prompt text that belongs to the answer.

    If the model is told its budget, it is that of `hint`, with whose tokens `token_ids` end. `form`
    is the format from here on: the model does not open a thought that the prompt has opened. A
    `verbatim` prompt is continued as it stands, with neither a thought nor an answer.
    """

    token_ids: list[int]
    plan: Plan
    form: CompiledFormat | None
    close: Close | None
    shown: str = ""
    hint: Hint | None = None
    verbatim: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Chat:
    """A chat with a model that thinks, and the request's wishes for its thought.

    `arguments` are the template's. `close` replaces the model's own close text; `bare` leaves out
    the answer prefix, and `calls` says that the answer may be a call. The thought starts with the
    text `begun`, and `due` says when its answer is due. Each request finds out anew how the
    template leaves the thought: words in a message may switch it, too.
    """

    checkpoint: Checkpoint
    messages: Messages
    ask: Ask
    limits: Limits
    arguments: Arguments
    close: Close | None = None
    bare: bool = False
    calls: bool = False
    begun: str = ""
    due: Due | None = None

    def prompt(self, *, hinted: bool = False) -> Prompt:
        """Raises `TokenizerError` and the errors of `resolve`."""
        checkpoint, traits = self.checkpoint, self.checkpoint.traits
        assert checkpoint.form is not None and checkpoint.compiled is not None
        wish: Arguments = {}
        if self.ask.wants_thought(self.limits):
            wish = {**traits.on, **traits.effort_arguments(self.ask.effort), **self.arguments}
        token_ids, opened = self._rendered(wish)
        if opened == "model" and (self.begun or checkpoint.form.opens):
            token_ids, opened = [*token_ids, *checkpoint.start_ids], "open"
        if self.begun:
            token_ids = [*token_ids, *checkpoint.tokenizer.encode(self.begun)]
        form = replace(checkpoint.compiled, opened_by="model" if opened == "model" else "template")
        close = self._stated(self.close or form.close)
        prompt = Prompt(token_ids, self._plan(token_ids, form, close), form, close)
        if not prompt.plan.budget:
            return self._closed(prompt, opened)
        if opened == "closed":
            plan = replace(prompt.plan, budget=0, source="template", grace=0, min_thinking=0)
            return replace(prompt, plan=plan)
        return self._told(prompt, wish) if hinted else prompt

    def _stated(self, close: Close) -> Close:
        calls = self._call_close
        return calls or (close.bare if self.bare else close)

    @property
    def _call_close(self) -> Close | None:
        compiled = self.checkpoint.compiled
        return compiled.call_close if compiled and self.calls else None

    def _rendered(self, more: Arguments) -> tuple[list[int], Opening]:
        """The chat's tokens, and how the template leaves the thought."""
        checkpoint = self.checkpoint
        assert checkpoint.form is not None
        text, end = tail(
            checkpoint.tokenizer,
            checkpoint.traits.turns(self.messages),
            {**self.arguments, **more},
        )
        most = self.limits.max_model_len
        return checkpoint.encode_text(text, most), opening(checkpoint.form, end)

    def _plan(
        self, token_ids: Sequence[int], form: CompiledFormat, close: Close, closing: int = 0
    ) -> Plan:
        """The plan for a prompt whose last `closing` tokens close its thought."""
        return self.checkpoint.plan(
            self.ask,
            self.limits,
            len(token_ids) - closing,
            form=form,
            close=close,
            closing_tokens=closing,
        )

    def _closed(self, asked: Prompt, opened: Opening) -> Prompt:
        """The prompt of a chat that is to have no thought.

        The template's switch turns the thought off, if it has one that takes these messages;
        otherwise the close text follows the prompt.
        """
        assert asked.form is not None and asked.close is not None
        checkpoint, token_ids, shown = self.checkpoint, asked.token_ids, ""
        off = checkpoint.traits.off if self.close is None else None
        if off is not None:
            try:
                token_ids, opened = self._rendered(off)
            except TokenizerError:  # the template cannot switch it off for these messages
                off = None
        if opened == "open":
            token_ids, shown = [*token_ids, *asked.close.ids], asked.close.shown
        elif opened == "model" and off is None:
            skip = Close((), "") if self._call_close else self._stated(asked.form.skip)
            if self.close is not None:
                skip = replace(asked.close, ids=(*checkpoint.start_ids, *asked.close.ids))
            token_ids, shown = [*token_ids, *skip.ids], skip.shown
        # A closed thought stays closed, even where the closed prompt is the shorter one.
        closing = max(0, len(token_ids) - len(asked.token_ids))
        plan = self._plan(token_ids, asked.form, asked.close, closing)
        return replace(asked, token_ids=token_ids, plan=replace(plan, budget=0), shown=shown)

    def _told(self, prompt: Prompt, wish: Arguments) -> Prompt:
        """The prompt that tells the model its budget, where one was asked for or is the default.

        Each of several thoughts is told its share, and where the answer is due, the part of the
        budget that the time leaves. A model that was trained on hints is told by one; a template
        that tells the budget itself is given the number. If a deadline, a pool or the load limits a
        thought that has no other limit, a hint tells it only up to the largest trained budget: a
        request for no limit is not held to the largest hint. The model is told nothing where the
        context has no room for both the hint and its budget.
        """
        assert prompt.form is not None and prompt.close is not None
        asked = self.limits.default if self.ask.budget is None else self.ask.budget
        budget, tells = prompt.plan.budget // self.ask.thoughts, self.checkpoint.traits.tells
        room = self.due.exit(prompt.plan).room(self.due.now) if self.due else None
        if room is not None:
            budget = min(budget, room)
        elif asked == UNLIMITED and prompt.plan.source not in ("pool", "load"):
            return prompt
        hint = prompt.form.hint(budget)
        if hint is not None and asked == UNLIMITED and budget > prompt.form.most_trained:
            return prompt
        if hint is not None and len(hint.ids) <= budget:
            told, token_ids = hint.budget, [*prompt.token_ids, *hint.ids]
        elif tells is not None and budget:
            token_ids, _ = self._rendered({**wish, tells: budget})
            told = min(budget, self._plan(token_ids, prompt.form, prompt.close).budget)
            if told < budget:  # the hint takes room itself
                token_ids, _ = self._rendered({**wish, tells: told})
            hint = Hint(told)
        else:
            return prompt
        plan = self._plan(token_ids, prompt.form, prompt.close)
        if plan.budget < told:
            return prompt
        return replace(prompt, token_ids=token_ids, plan=plan, hint=hint)
