"""A model directory without its weights: how to prompt its model, and how the model thinks.

The server, rollouts, evaluation and the study load it and make their prompts here, so that all of
them prompt a model in the same way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from ponder.checkpoint.calls import syntax
from ponder.checkpoint.chat import Chat, Prompt
from ponder.checkpoint.traits import HELLO, Messages, Traits, learn, opening, tail, writes_thoughts
from ponder.engine.protocol import Sampling
from ponder.engine.tokenizer import GoesOn, HFTokenizer, ModelFiles, TokenizerError
from ponder.thought.budget import Ask, Limits, Plan, no_room, resolve
from ponder.thought.contract import Contract
from ponder.thought.curve import Curves
from ponder.thought.errors import ReasoningUnsupported
from ponder.thought.exits.deadline import Due
from ponder.thought.exits.exit import Exit
from ponder.thought.families import TAGS, of_contract, recognise, unread
from ponder.thought.format import Close, CompiledFormat, ThoughtFormat
from ponder.thought.segment import AnswerRules
from ponder.thought.thought import Thought


@dataclass(frozen=True)
class Checkpoint:
    """Files, tokenizer and form of a model; `form` is None for one that does not think.

    `contract` is None where there is no `ponder.json`: then the chat template gives the family.
    `traits` describe the template. `unread` is the marker of a model that seems to think, but whose
    thoughts Ponder cannot read.

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
    traits: Traits = field(default_factory=Traits)
    unread: str | None = None

    @classmethod
    def load(cls, files: ModelFiles) -> Checkpoint:
        """Raises `ContractError`, `TokenizerError`, `InvalidCloseText`."""
        tokenizer = HFTokenizer(files.directory)
        return cls.of(files, tokenizer, Contract.load(files.directory))

    @classmethod
    def of(
        cls,
        files: ModelFiles,
        tokenizer: HFTokenizer,
        contract: Contract | None,
        model_type: str | None = None,
    ) -> Checkpoint:
        """A checkpoint that keeps `contract`, whatever `ponder.json` says.

        `model_type` is by default that of config.json.
        """
        if contract is not None:
            form: ThoughtFormat | None = of_contract(contract)
        else:
            form = recognised(tokenizer, files.model_type if model_type is None else model_type)
        if form is None:
            return cls(files, tokenizer, None, None, unread=unread(tokenizer.chat_template))
        calls = syntax(tokenizer.chat_template)
        if calls is not None and (contract is None or contract.tool_call is None):
            form = replace(form, tool_call=calls.marker or form.tool_call)
        traits, opens = Traits(), form.opens
        if tokenizer.chat_template:
            traits = learn(tokenizer, form)
            opens = opens or opening(form, tail(tokenizer, HELLO, traits.on)[1]) == "open"
        compiled = CompiledFormat.of(form, "template" if opens else "model", tokenizer)
        return cls(files, tokenizer, form, compiled, contract, traits)

    @property
    def curves(self) -> Curves | None:
        """What each budget gives on each task; None for a checkpoint without a calibration."""
        return self.contract.curves if self.contract is not None else None

    @property
    def can_hint(self) -> bool:
        """Whether the model can be told its budget: by a hint that it was trained on, behind the
        template's opening, or by the template.
        """
        hints = self.compiled is not None and bool(self.compiled.hints)
        return hints or self.traits.tells is not None

    def closing(self, text: str) -> Close:
        """Another close text in this model's tokens. Raises `InvalidCloseText`."""
        assert self.form is not None and self.compiled is not None
        wrapper, _ = self.form.wrapper or ("", "")
        return Close.of(text, self.compiled.end, self.form.answer_prefix, self.tokenizer, wrapper)

    def prompt(
        self,
        messages: Messages,
        ask: Ask,
        limits: Limits,
        *,
        arguments: Mapping[str, Any] | None = None,
        close: Close | None = None,
        bare: bool = False,
        calls: bool = False,
        hinted: bool = False,
        begun: str = "",
        due: Due | None = None,
    ) -> Prompt:
        """Render the chat, plan the thought, and append the tokens that the plan needs.

        `arguments` are the template's. `close` replaces the model's own; `bare` leaves out the
        answer prefix, for an answer that follows a grammar, and `calls` says that the answer may be
        a call. `hinted` tells the model its budget, if it was trained on one that fits, also within
        the time left until the answer is `due`. The thought starts with the text `begun`. Raises
        `TokenizerError` and the errors of `resolve`.
        """
        given = arguments or {}
        if self.compiled is None:
            return self._unthinking(
                self._encode(messages, given, limits.max_model_len), ask, limits
            )
        chat = Chat(
            checkpoint=self,
            messages=messages,
            ask=ask,
            limits=limits,
            arguments=given,
            close=close,
            bare=bare,
            calls=calls,
            begun=begun,
            due=due,
        )
        return chat.prompt(hinted=hinted)

    def opened(self, messages: Messages, arguments: Mapping[str, Any] | None = None) -> list[int]:
        """A chat's tokens up to the beginning of its thought, for callers that continue inside it.

        `arguments` are the template's. The thought is opened where the template does not. Raises
        `TokenizerError`, also for a template that closes every thought.
        """
        assert self.form is not None
        text, end = tail(self.tokenizer, messages, {**(arguments or {}), **self.traits.on})
        opened = opening(self.form, end)
        if opened == "closed":
            raise TokenizerError("this chat template closes the thought: use one that can open it")
        starts = self.start_ids if opened == "model" else []
        return [*self.tokenizer.encode(text), *starts]

    def _unthinking(self, token_ids: list[int], ask: Ask, limits: Limits) -> Prompt:
        """The prompt of a model without thoughts that Ponder can read."""
        self._check_unread(ask)
        return Prompt(token_ids, self.plan(ask, limits, len(token_ids)), None, None)

    def _check_unread(self, ask: Ask) -> None:
        """Raise where a thought is asked for, or none, of a model whose thoughts nobody reads."""
        if self.unread is not None and ask.insists and (ask.thinks or ask.budget is not None):
            raise ReasoningUnsupported(self.without("`budget`"), "budget")

    def without(self, option: str) -> str:
        """Why a model without thoughts that Ponder can read does not take this option."""
        if self.unread is None:
            return f"this model does not think: leave {option} out"
        return (
            f"this model seems to think (its chat template holds {self.unread!r}), but Ponder does "
            f"not know how its thoughts are written: leave {option} out, or describe them in a "
            f"ponder.json (`ponder contract MODEL --write` begins one; docs/models.md)"
        )

    def raw_prompt(
        self,
        content: str | Sequence[int],
        ask: Ask,
        limits: Limits,
        *,
        opened: bool = False,
        special_tokens: bool = True,
        close: Close | None = None,
        bare: bool = False,
        plain_tokens: int | None = None,
    ) -> Prompt:
        """A prompt of the caller's own text or token ids, with the plan of its continuation.

        There is a thought only if the caller opens it: by `opened`, or with a start marker at the
        very end. Otherwise the prompt is continued verbatim, for at most `plain_tokens` where `ask`
        has no limit. Raises `ReasoningUnsupported` for options of a thought that is not opened, and
        the errors of `resolve`.
        """
        if isinstance(content, str):
            token_ids = self.encode_text(content, limits.max_model_len, special_tokens)
        else:
            token_ids = list(content)
        if not (opened or self._ends_open(token_ids)):
            return self._plain_prompt(token_ids, ask, limits, plain_tokens)
        if self.compiled is None:
            raise ReasoningUnsupported(self.without("ponder.thinking"), "thinking")
        form = replace(self.compiled, opened_by="template")
        closed = close or form.close
        closed = closed.bare if bare else closed
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
        self._check_unread(ask)
        if ask.max_completion_tokens is None:
            ask = replace(ask, max_completion_tokens=plain_tokens)
        return Prompt(token_ids, self.plan(ask, limits, len(token_ids)), None, None, verbatim=True)

    def _ends_open(self, token_ids: Sequence[int]) -> bool:
        """Whether a prompt ends, blank aside, with the marker that starts a thought."""
        if self.compiled is None:
            return False
        start, end = self.compiled.start, len(token_ids)
        while end and self.tokenizer.token_bytes(token_ids[end - 1]).isspace():
            end -= 1
        if start.token_id is not None:
            return end > 0 and token_ids[end - 1] == start.token_id
        tail = token_ids[max(0, end - len(start.text.encode())) : end]
        read = self.compiled.marks.decoder(self.tokenizer)
        return "".join(map(read.feed, tail)).rstrip().endswith(start.seen.rstrip())

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
        """The plan of a thought in this format; `closing_tokens` behind the prompt close it."""
        starts = self.start_ids if form is not None and form.opened_by == "model" else []
        plan = resolve(
            ask,
            limits,
            prompt_tokens=prompt_tokens,
            closing_tokens=closing_tokens,
            close_tokens=len(starts) + len(close.ids) if close else 0,
            thinks=form is not None,
        )
        return plan if self.unread is None else replace(plan, source="unread")

    def thought(
        self,
        prompt: Prompt,
        sampling: Sampling,
        rules: AnswerRules | None = None,
        *,
        exits: Sequence[Exit] = (),
        apart: bool = False,
    ) -> Thought:
        """The thought that follows a prompt, for a driver to run.

        The marker of a call ends a thought only if `rules` look for calls.
        """
        rules, form = rules or AnswerRules(), prompt.form
        return Thought(
            self.tokenizer,
            form.without_calls() if form is not None and rules.calls is None else form,
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
        """A chat's tokens, rendered without switching or hinting the thought.

        Raises `TokenizerError`, and `ContextLengthExceeded` instead of encoding a chat that surely
        has more than `most` tokens. `goes_on` says who speaks next.
        """
        turns = self.traits.turns(messages)
        text = self.tokenizer.render(turns, arguments or {}, goes_on=goes_on)
        return self.encode_text(text, most, special_tokens)

    def _encode(
        self, messages: Messages, arguments: Mapping[str, Any], most: int | None
    ) -> list[int]:
        return self.encode_text(self.tokenizer.render(messages, arguments), most)

    def encode_text(self, text: str, most: int | None, special_tokens: bool = False) -> list[int]:
        """A text's tokens. Raises `ContextLengthExceeded` for surely more than `most`."""
        if most is not None and (roughly := self.tokenizer.beyond(text, most)) is not None:
            raise no_room(most, f"roughly {roughly}")
        return self.tokenizer.encode(text, special_tokens=special_tokens)

    @cached_property
    def start_ids(self) -> list[int]:
        """The tokens that open a thought where the template does not."""
        return self.tokenizer.encode(self.form.start) if self.form else []


def recognised(tokenizer: HFTokenizer, model_type: str) -> ThoughtFormat | None:
    """The format of a chat template's family, or the plain tags if it writes them.

    A template that several families share may hold the markers only to strip them from earlier
    turns.
    """
    row = recognise(tokenizer.chat_template, model_type)
    if row is not None and not row.model_type:
        return row.format
    form = row.format if row else TAGS
    return form if writes_thoughts(tokenizer, form) else None
