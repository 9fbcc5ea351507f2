"""Learns what a chat template does by rendering it, instead of trusting its name.

A template ends a prompt with the text that it adds for the assistant's turn. That text holds
nothing from a user, so the markers in it show how the template leaves the thought.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from ponder.engine.tokenizer import GoesOn, TokenizerError
from ponder.thought.budget import EFFORT_TOKENS
from ponder.thought.format import ThoughtFormat

Arguments = Mapping[str, Any]
Messages = Sequence[Mapping[str, Any]]
Opening = Literal["open", "closed", "model"]
"""Where a prompt ends: inside a thought, behind one, or where the model's first token decides."""

HELLO: Messages = [{"role": "user", "content": "Hello"}]
_THOUGHT = "A thought of long ago."
_TOLD = 517
"""A number of tokens that no template writes unless it is given."""


class Template(Protocol):
    """A chat template that `learn` can try."""

    @property
    def template_variables(self) -> frozenset[str]: ...

    def render(
        self, messages: Messages, arguments: Arguments, *, goes_on: GoesOn = "assistant"
    ) -> str: ...


@dataclass(frozen=True, slots=True)
class Switch:
    """A template argument that may switch thinking; `on` is None where leaving it out does."""

    name: str
    on: Any
    off: Any

    @property
    def flag(self) -> bool:
        """Whether it only switches, and is neither an effort nor a number."""
        return self.name not in (*EFFORT_NAMES, BUDGET_NAME)


SWITCHES = (
    Switch("enable_thinking", True, False),
    Switch("thinking", True, False),
    Switch("reasoning", True, False),
    Switch("thinking_mode", "enabled", "disabled"),
    Switch("thinking_option", "on", "off"),
    Switch("thinking_budget", None, 0),
    Switch("reasoning_effort", "high", "no_think"),
    Switch("reasoning_effort", "high", "none"),
)
"""The known names of the switch in templates."""

EFFORT_NAMES = ("reasoning_effort", "thinking_effort")
BUDGET_NAME = "thinking_budget"
HISTORY = ("reasoning_content", "reasoning", "thinking")
"""Names of an earlier turn's thought in templates; requests use the first one."""


@dataclass(frozen=True, slots=True)
class Traits:
    """How to ask a template for a thought, and for none.

    `own` is how a prompt without arguments ends. `on` and `off` are the arguments that switch
    thinking; `off` is None where no argument does. `switches` maps arguments that a request may set
    itself to their values for on and off. `efforts` maps Ponder's efforts to the template's words,
    for its argument `effort`. `tells` is the argument's name where the template tells the model a
    number of tokens itself. `history` is the template's name for an earlier turn's thought.
    """

    own: Opening = "model"
    on: Arguments = field(default_factory=dict)
    off: Arguments | None = None
    switches: Mapping[str, tuple[Any, Any]] = field(default_factory=dict)
    effort: str | None = None
    efforts: Mapping[str, str] = field(default_factory=dict)
    tells: str | None = None
    history: str = HISTORY[0]

    def turns(self, messages: Messages) -> Messages:
        """The messages, with the template's name for their thoughts."""
        if self.history == HISTORY[0]:
            return messages
        return [
            {**turn, self.history: turn[HISTORY[0]]} if HISTORY[0] in turn else turn
            for turn in messages
        ]

    def effort_arguments(self, effort: str | None) -> Arguments:
        """The argument that tells the model an effort, if its template takes efforts."""
        word = self.efforts.get(effort or "")
        return {} if self.effort is None or word is None else {self.effort: word}


def tail(template: Template, messages: Messages, arguments: Arguments) -> tuple[str, str]:
    """A prompt, and the end of it that the template adds for the assistant's turn.

    If the template adds the same with and without a generation prompt, that end is the text behind
    the last message. Raises `TokenizerError`.
    """
    prompt = template.render(messages, arguments)
    before = template.render(messages, arguments, goes_on="nobody")
    if prompt != before and prompt.startswith(before):
        return prompt, prompt[len(before) :]
    said = messages[-1].get("content") if messages else None
    if not isinstance(said, str) or not said or said not in prompt:
        return prompt, ""
    return prompt, prompt.rpartition(said)[2]


def opening(form: ThoughtFormat, end: str) -> Opening:
    """How a prompt's end leaves the thought."""
    end = end.rstrip()
    if end.endswith(form.start.rstrip()):
        return "open"
    skipped = form.skip_text is not None and end.endswith(form.skip_text.rstrip())
    return "closed" if skipped or form.end.strip() in end else "model"


def learn(template: Template, form: ThoughtFormat) -> Traits:
    """Find out by trying what a template takes.

    Raises `TokenizerError` if it cannot render, or tells no budget by the form's argument.
    """
    plain, end = tail(template, HELLO, {})
    own = opening(form, end)
    tried = list(_tried(template, form, plain))
    on = {**_needed(form, own, tried), **form.think}
    off = {switch.name: switch.off for switch, _, works in reversed(tried) if works}
    own_off = form.no_think or {}
    off |= own_off
    if off and _renders(template, off) in (None, _renders(template, on)):
        off = {}
    effort, efforts = _efforts(template, form, on)
    return Traits(
        own=own,
        on=on,
        off=off or None,
        switches={
            **{name: (form.think[name], no) for name, no in own_off.items() if name in form.think},
            **{s.name: (s.on, s.off) for s, _, works in tried if works and s.flag},
        },
        effort=effort,
        efforts=efforts,
        tells=_tells(template, form, on),
        history=next((name for name, _ in _earlier_turns(template)), HISTORY[0]),
    )


def writes_thoughts(template: Template, form: ThoughtFormat) -> bool:
    """Whether the template writes this format's markers itself: in a prompt or an earlier turn."""
    read = [switch for switch in SWITCHES if switch.name in template.template_variables]
    values = [(switch.name, value) for switch in read for value in (switch.on, switch.off)]
    for given in ({}, *({name: value} for name, value in values if value is not None)):
        try:
            _, end = tail(template, HELLO, given)
        except TokenizerError:
            continue
        if opening(form, end) != "model":
            return True
    return any(form.start in turn for _, turn in _earlier_turns(template))


def _earlier_turns(template: Template) -> Iterator[tuple[str, str]]:
    """How the template writes an assistant's turn that had a thought, by the thought's name."""
    for name in HISTORY:
        turn = {"role": "assistant", "content": "Hi.", name: _THOUGHT}
        try:
            written = template.render([*HELLO, turn], {}, goes_on="nobody")
        except TokenizerError:
            continue
        if _THOUGHT in written:
            yield name, written


def _tried(
    template: Template, form: ThoughtFormat, plain: str
) -> Iterator[tuple[Switch, Opening, bool]]:
    """Each switch that the template reads, how it opens a prompt when on, and if `off` works.

    A flag that only changes the prompt's text is a switch too; an effort or a number is one only
    where it closes the thought.
    """
    for switch in SWITCHES:
        if switch.name not in template.template_variables:
            continue
        given = {} if switch.on is None else {switch.name: switch.on}
        try:
            on, on_end = tail(template, HELLO, given)
        except TokenizerError:
            continue
        try:
            off, off_end = tail(template, HELLO, {switch.name: switch.off})
        except TokenizerError:
            off = None
        opened = opening(form, on_end)
        if off is None:
            if on != plain:
                yield switch, opened, False
            continue
        closes = opening(form, off_end) == "closed" and opened != "closed"
        if off != on and (closes or switch.flag):
            yield switch, opened, True


def _needed(
    form: ThoughtFormat, own: Opening, tried: list[tuple[Switch, Opening, bool]]
) -> dict[str, Any]:
    """The arguments that ask for a thought: every flag, and an effort only if no flag can."""
    on = {switch.name: switch.on for switch, _, _ in tried if switch.flag}
    if not on and own == "closed":
        on = {switch.name: switch.on for switch, opened, _ in tried if opened != "closed"}
    return {name: value for name, value in on.items() if value is not None}


def _renders(template: Template, arguments: Arguments) -> str | None:
    try:
        return template.render(HELLO, arguments)
    except TokenizerError:
        return None


def _efforts(
    template: Template, form: ThoughtFormat, on: Arguments
) -> tuple[str | None, Mapping[str, str]]:
    """The argument that takes an effort, and for each of Ponder's the nearest word that it takes.

    Of two equally near words it is the smaller one: the cap beside it is the requested one.
    """
    words = [effort for effort in EFFORT_TOKENS if effort != "none"]
    for name in EFFORT_NAMES:
        if name not in template.template_variables:
            continue
        taken = [
            word
            for word in words
            if (not form.efforts or word in form.efforts)
            and _renders(template, {**on, name: word}) is not None
        ]
        places = {word: words.index(word) for word in taken}
        nearest = {
            effort: min(taken, key=lambda word: (abs(places[word] - place), places[word]))
            for place, effort in enumerate(words)
            if taken
        }
        if nearest:
            return name, nearest
    return None, {}


def _tells(template: Template, form: ThoughtFormat, on: Arguments) -> str | None:
    """The argument by which the template tells the model a number of tokens, if there is one.

    Raises `TokenizerError` if it is not the one that the form names.
    """
    name = form.tells or BUDGET_NAME
    read = name in template.template_variables
    if read and str(_TOLD) in (_renders(template, {**on, name: _TOLD}) or ""):
        return name
    if form.tells is not None:
        raise TokenizerError(
            f"the chat template tells the model no budget by {name}: correct budget_argument in "
            f"ponder.json, or leave it out"
        )
    return None
