"""How a model writes a thought, and how a thought is closed for it.

A checkpoint's contract says it; for models without one, the table of `ponder.thought.families`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ponder.engine.protocol import Vocabulary
from ponder.thought.errors import InvalidCloseText

OpenedBy = Literal["template", "model"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ThoughtFormat:
    """The textual form of a thought: what rendering a chat template cannot tell.

    `start` and `end` are the markers; a sampled `tool_call` marker ends a thought too, and `again`
    begins another part of it: none of them is shown. `close_text` holds `end` exactly once and is
    appended where a thought is closed for the model; `source` says where it comes from.
    `answer_prefix` follows it and is shown. `skip_text` is what a prompt ends with that is to have
    no thought, where the template has no switch: start marker and close text, if it is None.
    `wrapper` is what some models write around the answer, which is not shown.

    `opens` says that the thought is always opened: by Ponder, where the chat template does not.
    `think` and `no_think` are template arguments that switch thinking on and off where trying the
    usual ones cannot tell; `efforts` are the words that the model was trained on, where its
    template takes any. `hint` has a place for `{budget}`, which is one of `trained_budgets`.
    """

    name: str
    start: str = "<think>"
    end: str = "</think>"
    again: str | None = None
    close_text: str = "\n</think>\n\n"
    source: str = "neutral"
    answer_prefix: str = ""
    skip_text: str | None = None
    wrapper: tuple[str, str] | None = None
    tool_call: str | None = None
    opens: bool = False
    think: Mapping[str, Any] = field(default_factory=dict)
    no_think: Mapping[str, Any] | None = None
    efforts: tuple[str, ...] = ()
    hint: str | None = None
    trained_budgets: tuple[int, ...] = ()


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

    `skip` follows a prompt that is to have no thought, where the template has no switch. `hints`
    are in ascending order of budgets. Only a thought that the template opens can be
    hinted: elsewhere the prompt ends before the thought does begin.
    """

    start: Marker
    end: Marker
    tool_call: Marker | None
    close: Close
    opened_by: OpenedBy
    skip: Close
    hints: tuple[Hint, ...] = ()

    @classmethod
    def of(
        cls,
        form: ThoughtFormat,
        opened_by: OpenedBy,
        vocabulary: Vocabulary,
    ) -> CompiledFormat:
        end = Marker.of(form.end, vocabulary)
        hints = [
            Hint(budget, tuple(vocabulary.encode(form.hint.replace("{budget}", str(budget)))))
            for budget in sorted(form.trained_budgets)
            if form.hint is not None and opened_by == "template"
        ]
        close = Close.of(form.close_text, end, form.answer_prefix, vocabulary)
        if form.skip_text is None:
            skip = Close((*vocabulary.encode(form.start), *close.ids), close.shown)
        else:
            skip = Close(tuple(vocabulary.encode(form.skip_text)), "")
        return cls(
            start=Marker.of(form.start, vocabulary),
            end=end,
            tool_call=Marker.of(form.tool_call, vocabulary) if form.tool_call else None,
            close=close,
            opened_by=opened_by,
            skip=skip,
            hints=tuple(hints),
        )

    def hint(self, budget: int) -> Hint | None:
        """The largest trained budget within `budget` tokens; None below the smallest."""
        return max(
            (hint for hint in self.hints if hint.budget <= budget),
            key=lambda hint: hint.budget,
            default=None,
        )
