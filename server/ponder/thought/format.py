"""How a model family writes a thought, and how a thought is closed for it.

A checkpoint's contract says it; for families without one, the table below. How a thought opens is
never read from a user's prompt: markers that a user typed mean nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from ponder.engine.protocol import Vocabulary
from ponder.thought.contract import Contract, ContractError
from ponder.thought.errors import InvalidCloseText

# (messages, template arguments) → the prompt's text
Render = Callable[[Sequence[Mapping[str, Any]], Mapping[str, Any]], str]

HELLO = [{"role": "user", "content": "Hello"}]


@dataclass(frozen=True, slots=True, kw_only=True)
class ThoughtFormat:
    """The textual form of a thought.

    `opened_by` says whether the chat template ends with the start marker or the model samples it;
    None leaves the question to one rendering of the template at start-up. `think` and `no_think`
    are template arguments that switch thinking on and off, where the family has them. A sampled
    `tool_call` marker ends a thought too. `hint` has a place for `{budget}`, which is one of
    `trained_budgets`.
    """

    name: str
    start: str = "<think>"
    end: str = "</think>"
    close_text: str = "\n</think>\n\n"
    answer_prefix: str = ""
    opened_by: Literal["template", "model"] | None = None
    think: Mapping[str, Any] = field(default_factory=dict)
    no_think: Mapping[str, Any] | None = None
    tool_call: str | None = None
    hint: str | None = None
    trained_budgets: tuple[int, ...] = ()

    @classmethod
    def of_contract(cls, contract: Contract) -> ThoughtFormat:
        """Raises `ContractError` for a family that the table does not have."""
        row = cls(name="")
        if contract.family is not None:
            known = {family.format.name: family.format for family in FAMILIES}
            if contract.family not in known:
                raise ContractError(f"family {contract.family!r} is none of {', '.join(known)}")
            row = known[contract.family]
        return replace(
            row,
            name=f"contract ({contract.method})",
            start=contract.think_start,
            end=contract.think_end,
            close_text=contract.close_text,
            answer_prefix=contract.answer_prefix,
            opened_by=contract.opened_by,
            hint=contract.budget_hint,
            trained_budgets=contract.trained_budgets,
        )


@dataclass(frozen=True, slots=True)
class Family:
    """A row of the table: the format, and the strings that its chat templates all contain."""

    needles: tuple[str, ...]
    format: ThoughtFormat


# The sentence Qwen's own technical report appends when a thought is stopped early
# (Qwen3, arXiv 2505.09388, section 4.3): its models were shown to go on from it.
_QWEN_CLOSE = (
    "\n\nConsidering the limited time by the user, I have to give the solution based on the "
    "thinking directly now.\n</think>\n\n"
)
_SWITCH: Mapping[str, Any] = {"enable_thinking": True}
_NO_SWITCH: Mapping[str, Any] = {"enable_thinking": False}

FAMILIES: tuple[Family, ...] = (
    Family(
        ("<seed:think>",),
        ThoughtFormat(
            name="Seed-OSS",
            start="<seed:think>",
            end="</seed:think>",
            close_text="\n</seed:think>",
            no_think={"thinking_budget": 0},
            tool_call="<seed:tool_call>",
        ),
    ),
    Family(
        ("[gMASK]", "<think>"),
        ThoughtFormat(
            name="GLM",
            close_text="\n</think>\n",
            think=_SWITCH,
            no_think=_NO_SWITCH,
            tool_call="<tool_call>",
        ),
    ),
    Family(
        ("<｜Assistant｜>", "</think>"),
        ThoughtFormat(name="DeepSeek-R1"),
    ),
    Family(
        ("<SPECIAL_10>", "<think>"),
        ThoughtFormat(name="Nemotron", tool_call="<TOOLCALL>"),
    ),
    Family(
        ("truncate_history_thinking", "<think>"),
        ThoughtFormat(
            name="Nemotron 3", think=_SWITCH, no_think=_NO_SWITCH, tool_call="<tool_call>"
        ),
    ),
    Family(
        ("<|im_start|>", "</think>"),
        ThoughtFormat(
            name="Qwen3",
            close_text=_QWEN_CLOSE,
            think=_SWITCH,
            no_think=_NO_SWITCH,
            tool_call="<tool_call>",
        ),
    ),
)


def recognise(chat_template: str) -> ThoughtFormat | None:
    """The family whose needles the template contains; None for a model that does not think."""
    for family in FAMILIES:
        if all(needle in chat_template for needle in family.needles):
            return family.format
    return None


def opened_by(form: ThoughtFormat, render: Render) -> Literal["template", "model"]:
    """The form's word, else one rendering of a message of ours: never a user's prompt."""
    if form.opened_by is not None:
        return form.opened_by
    opened = render(HELLO, form.think).rstrip().endswith(form.start)
    return "template" if opened else "model"


@dataclass(frozen=True, slots=True)
class Marker:
    """A marker's text, and its token id where it is a single token.

    Single tokens are matched by id, so that a model which spells the marker out in ordinary
    characters does not end its thought; others can only be matched in the text.
    """

    text: str
    token_id: int | None

    @classmethod
    def of(cls, text: str, vocabulary: Vocabulary) -> Marker:
        ids = vocabulary.encode(text)
        return cls(text, ids[0] if len(ids) == 1 else None)


@dataclass(frozen=True, slots=True)
class Close:
    """What is appended to close a thought.

    `ids` is the close text and the answer prefix, each tokenised by itself. `shown` is what the
    user sees of it: everything after the end marker.
    """

    ids: tuple[int, ...]
    shown: str

    @classmethod
    def of(cls, text: str, end: Marker, answer_prefix: str, vocabulary: Vocabulary) -> Close:
        """Raises `InvalidCloseText` unless text and prefix hold the end marker exactly once."""
        ids = vocabulary.encode(text)
        as_token = end.token_id is None or ids.count(end.token_id) == 1
        if (text + answer_prefix).count(end.text) != 1 or end.text not in text or not as_token:
            raise InvalidCloseText(
                f"close_text must contain the end marker {end.text!r} exactly once", "close_text"
            )
        shown = text.partition(end.text)[2] + answer_prefix
        return cls((*ids, *vocabulary.encode(answer_prefix)), shown)


@dataclass(frozen=True, slots=True)
class Hint:
    """A trained budget, and the text that tells the model of it, tokenised by itself.

    It goes right after an opened thought's marker, as the last part of the prompt: its tokens are
    no part of the thought, neither of its text nor of its count.
    """

    budget: int
    ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class CompiledFormat:
    """A format in one vocabulary's token ids: what a thought works with.

    `hints` are in ascending order of budgets. Only a thought that the template opens can be
    hinted: elsewhere the prompt ends before the thought does begin.
    """

    start: Marker
    end: Marker
    tool_call: Marker | None
    close: Close
    opened_by: Literal["template", "model"]
    hints: tuple[Hint, ...] = ()

    @classmethod
    def of(
        cls,
        form: ThoughtFormat,
        opened_by: Literal["template", "model"],
        vocabulary: Vocabulary,
    ) -> CompiledFormat:
        end = Marker.of(form.end, vocabulary)
        hints = [
            Hint(budget, tuple(vocabulary.encode(form.hint.replace("{budget}", str(budget)))))
            for budget in sorted(form.trained_budgets)
            if form.hint is not None and opened_by == "template"
        ]
        return cls(
            start=Marker.of(form.start, vocabulary),
            end=end,
            tool_call=Marker.of(form.tool_call, vocabulary) if form.tool_call else None,
            close=Close.of(form.close_text, end, form.answer_prefix, vocabulary),
            opened_by=opened_by,
            hints=tuple(hints),
        )

    def hint(self, budget: int) -> Hint | None:
        """The largest trained budget within `budget` tokens; None below the smallest."""
        return max(
            (hint for hint in self.hints if hint.budget <= budget),
            key=lambda hint: hint.budget,
            default=None,
        )
