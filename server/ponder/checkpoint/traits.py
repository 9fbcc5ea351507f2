"""Learns what a chat template does by rendering it, instead of trusting its name.

A template ends a prompt with the text that it adds for the assistant's turn. That text holds
nothing from a user, so the markers in it show how the template leaves the thought.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any, Literal, Protocol

from ponder.engine.tokenizer import GoesOn, TokenizerError
from ponder.thought.format import ThoughtFormat

Arguments = Mapping[str, Any]
Messages = Sequence[Mapping[str, Any]]
Opening = Literal["open", "closed", "model"]
"""Where a prompt ends: inside a thought, behind one, or where the model's first token decides."""

HELLO: Messages = [{"role": "user", "content": "Hello"}]
_THOUGHT = "A thought of long ago."
_MORE = (" 0", " 1")
"""Two ways in which a message may go on, with nothing in common at their ends."""
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
    """A template argument that may switch thinking; `on` is None where leaving it out does.

    The values in `neither` leave it to the model whether it thinks.
    """

    name: str
    on: Any
    off: Any
    neither: tuple[Any, ...] = ()

    @property
    def flag(self) -> bool:
        """Whether it only switches, and is neither an effort nor a number."""
        return self.name not in (*EFFORT_NAMES, BUDGET_NAME)


SWITCHES = (
    Switch("enable_thinking", True, False),
    Switch("thinking", True, False),
    Switch("reasoning", True, False),
    Switch("thinking_mode", "enabled", "disabled", ("adaptive",)),
    Switch("thinking_option", "on", "off"),
    Switch("thinking_budget", None, 0),
    Switch("reasoning_effort", "high", "no_think"),
    Switch("reasoning_effort", "high", "none"),
)
"""The known names of the switch in templates."""

EFFORT_NAMES = ("reasoning_effort", "thinking_effort", "reasoning_strength")
_SCALE = {"minimal": 0, "low": 1, "medium": 2, "high": 3, "xhigh": 4, "max": 4.5}
"""How far efforts are apart: of the last two, most templates have one, which is their most."""
_UNSAID = 2
"""Where a template stands that says nothing about an effort."""
_NO_EFFORT = "unheard-of"
"""An effort that no template knows."""
BUDGET_NAME = "thinking_budget"
HISTORY = ("reasoning_content", "reasoning", "thinking")
"""Names of an earlier turn's thought in templates; requests use the first one."""


@dataclass(frozen=True, slots=True)
class Traits:
    """How to ask a template for a thought, and for none.

    `own` is how a prompt without arguments ends. `on` and `off` are the arguments that switch
    thinking; `off` is None where no argument does. `switches` maps arguments that a request may set
    itself to their values for on, for off, and for neither. `efforts` maps Ponder's efforts to the
    template's words, for its argument `effort`. `tells` is the argument's name where the template
    tells the model a number of tokens itself. `history` is the template's name for an earlier
    turn's thought, which it refuses beside a text in front of calls where they are `exclusive`.
    """

    own: Opening = "model"
    on: Arguments = field(default_factory=dict)
    off: Arguments | None = None
    switches: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    effort: str | None = None
    efforts: Mapping[str, str] = field(default_factory=dict)
    tells: str | None = None
    history: str = HISTORY[0]
    exclusive: bool = False

    def turns(self, messages: Messages) -> Messages:
        """The messages, with the template's name for their thoughts."""
        if self.history == HISTORY[0] and not self.exclusive:
            return messages
        return [self._turn(turn) if HISTORY[0] in turn else turn for turn in messages]

    def _turn(self, turn: Mapping[str, Any]) -> Mapping[str, Any]:
        if self.exclusive and turn.get("tool_calls") and turn.get("content"):
            return {name: value for name, value in turn.items() if name != HISTORY[0]}
        return {**turn, self.history: turn[HISTORY[0]]}

    def effort_arguments(self, effort: str | None) -> Arguments:
        """The argument that tells the model an effort, if its template takes efforts."""
        word = self.efforts.get(effort or "")
        return {} if self.effort is None or word is None else {self.effort: word}


def tail(template: Template, messages: Messages, arguments: Arguments) -> tuple[str, str]:
    """A prompt, and the end of it that the template adds for the assistant's turn.

    If the template adds the same with and without a generation prompt, that end is what stays the
    same where the last message goes on in different ways. Raises `TokenizerError`.
    """
    prompt = template.render(messages, arguments)
    before = template.render(messages, arguments, goes_on="nobody")
    if prompt != before and prompt.startswith(before):
        return prompt, prompt[len(before) :]
    if not messages:
        return prompt, ""
    *earlier, last = messages
    said = last.get("content") or ""
    longer = [
        [*earlier, {**last, "content": [*said, {"type": "text", "text": more}]}]
        if isinstance(said, list)
        else [*earlier, {**last, "content": f"{said}{more}"}]
        for more in _MORE
    ]
    end = _common_end(*(template.render(turns, arguments) for turns in longer))
    return prompt, end if prompt.endswith(end) and end != prompt else ""


def _common_end(one: str, other: str) -> str:
    """The end that both texts have."""
    pairs = zip(reversed(one), reversed(other), strict=False)
    return one[len(one) - sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs)) :]


def opening(form: ThoughtFormat, end: str) -> Opening:
    """How a prompt's end leaves the thought.

    Behind the start marker, half an end marker closes it too: the model writes the other half.
    """
    end, closes = end.rstrip(), form.end.strip()
    _, start, thought = end.rpartition(form.start.rstrip())
    if start and not thought:
        return "open"
    half = bool(start) and closes.startswith(thought.strip())
    skipped = form.skip_text is not None and end.endswith(form.skip_text.rstrip())
    return "closed" if skipped or half or closes in end else "model"


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
    history = next((name for name, _ in _earlier_turns(template)), HISTORY[0])
    return Traits(
        own=own,
        on=on,
        off=off or None,
        switches={
            **{name: (form.think[name], no) for name, no in own_off.items() if name in form.think},
            **{s.name: (s.on, s.off, *s.neither) for s, _, _ in tried if s.flag},
        },
        effort=effort,
        efforts=efforts,
        tells=_tells(template, form, on),
        history=history,
        exclusive=_exclusive(template, history),
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


def _exclusive(template: Template, name: str) -> bool:
    """Whether the template takes a thought and a text each in front of calls, but never both."""
    call = {"id": "call_1", "type": "function", "function": {"name": "add", "arguments": {}}}
    turn = {"role": "assistant", "content": "Hi.", "tool_calls": [call]}
    thought = {**turn, "content": "", name: _THOUGHT}
    texts = [
        _renders(template, {}, [*HELLO, said]) for said in (turn, thought, {**turn, name: _THOUGHT})
    ]
    return None not in texts[:2] and texts[2] is None


def _tried(
    template: Template, form: ThoughtFormat, plain: str
) -> Iterator[tuple[Switch, Opening, bool]]:
    """Each switch that the template reads, how it opens a prompt when on, and if `off` works.

    A flag that only changes the prompt's text is a switch too, and so is one whose `off` the
    template refuses; an effort or a number is one only where it closes the thought.
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
            if switch.flag or on != plain:
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


def _renders(template: Template, arguments: Arguments, messages: Messages = HELLO) -> str | None:
    try:
        return template.render(messages, arguments)
    except TokenizerError:
        return None


def _efforts(
    template: Template, form: ThoughtFormat, on: Arguments
) -> tuple[str | None, Mapping[str, str]]:
    """The argument that takes an effort, and for each of Ponder's the nearest of its words.

    Of two equally near words it is the smaller one: the cap beside it is the requested one. A word
    that closes the thought stands for no other effort. Where the template says nothing about words
    that it does not know, an effort near none of the others stays one of them.
    """
    name = next((name for name in EFFORT_NAMES if name in template.template_variables), None)
    if name is None:
        return None, {}
    said = {word: _renders(template, {**on, name: word}) for word in _SCALE}
    unheard = _renders(template, {**on, name: _NO_EFFORT})
    known = {
        word: opening(form, tail(template, HELLO, {**on, name: word})[1])
        for word, prompt in said.items()
        if prompt not in (None, unheard) and (not form.efforts or word in form.efforts)
    }
    near = {word: _SCALE[word] for word, opened in known.items() if opened != "closed"}
    if unheard is not None and _NO_EFFORT not in unheard:
        own = _named(unheard, [said[word] or "" for word in near])
        near |= {word: _SCALE[word] for word in own} or {_NO_EFFORT: _UNSAID}

    def nearest(effort: str) -> str | None:
        place = _SCALE[effort]
        told = min(near, key=lambda word: (abs(near[word] - place), near[word]), default=None)
        return effort if effort in known or told == _NO_EFFORT else told

    efforts = {effort: word for effort in _SCALE if (word := nearest(effort))}
    return (name, efforts) if efforts else (None, {})


def _named(prompt: str, others: Sequence[str]) -> list[str]:
    """The efforts that a prompt names oftener than one of the others does."""
    here, there = _words(prompt), [_words(other) for other in others]
    return [word for word in _SCALE if any(here[word] > other[word] for other in there)]


def _words(text: str) -> Counter[str]:
    return Counter(re.findall("[a-z]+", text.lower()))


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
