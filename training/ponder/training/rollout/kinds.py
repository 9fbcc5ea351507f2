"""The kinds of rollouts from which methods learn: plain, hinted, truncated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from ..method.batch import Answer, Node, Prompt, Rollout
from .drive import Rounds
from .plans import Hint, Reader, Response, Truncated, replay, responses, thoughts

ALWAYS = frozenset(
    (
        *("accuracy", "group_accuracy", "length", "thinking"),
        *("truncated", "sampled", "unjudged", "budget"),
    )
)
"""The columns (B,) of all rollouts.

accuracy, group_accuracy   share of the rollout's, and of its group's, answers that are right
length, thinking           response tokens that the method counts, tokens of thought
truncated                  bool: no end within its limits
sampled, unjudged          tokens drawn; answers whose verifier failed
budget                     tokens that the hint promises, 0 without a hint
"""


class RolloutPlan(Protocol):
    """A method's way to roll out. Raises `ValueError` for a base or settings that do not allow it.

    `kind` is the plan's name for the user, `makes` the columns of its rollouts; `ragged`: it can
    sample any number of rollouts per prompt.
    Example: `pull(PlainPlan(settings, reader).rollouts([prompt], [4]), sampler)`.
    """

    kind: ClassVar[str]
    makes: ClassVar[frozenset[str]]
    ragged: ClassVar[bool]

    def __init__(self, settings: Any, reader: Reader) -> None: ...

    def rollouts(self, prompts: Sequence[Prompt], sizes: Sequence[int]) -> Rounds[list[Rollout]]:
        """`sizes` rollouts of the prompts, a prompt's side by side, not judged yet."""

    def read(self, rollout: Rollout) -> Rollout:
        """A rollout whose tokens were cut, with its answers read from them again."""

    def columns(self, rollouts: Sequence[Rollout]) -> dict[str, Tensor]:
        """The columns of judged rollouts for the stages; the collector adds `group_accuracy`."""

    def show(self, rollout: Rollout, reward: float) -> Mapping[str, object]:
        """The rollout as a line of samples.jsonl, for a person."""


class PlainPlan:
    """Responses without a hint or a cut, of at most `settings.longest` tokens.

    Beside `ALWAYS`: `correct` and `formatted` (bool), (B,).
    """

    kind: ClassVar[str] = "plain"
    makes: ClassVar[frozenset[str]] = ALWAYS | {"correct", "formatted"}
    ragged: ClassVar[bool] = True

    count_hint = False
    loss_on_hint = False

    def __init__(self, settings: Any, reader: Reader) -> None:
        self.reader = reader
        self.longest: int = settings.longest

    def hints(self, size: int) -> list[Hint]:
        """The hint of each of a prompt's `size` rollouts."""
        return [(None, ())] * size

    def rollouts(self, prompts: Sequence[Prompt], sizes: Sequence[int]) -> Rounds[list[Rollout]]:
        asked = [(prompt, self.hints(size)) for prompt, size in zip(prompts, sizes, strict=True)]
        found = yield from responses(asked, self.longest, self.reader)
        return [self._rollout(response) for response in found]

    def _rollout(self, response: Response) -> Rollout:
        hint = Node(response.hint, "hint", learnt=self.loss_on_hint)
        heads = (hint,) if response.hint else ()
        return Rollout(
            response.prompt,
            (*heads, Node(response.sampled, "response", parent=0 if heads else None)),
            response.thinking_tokens,
            (Answer(response.answer, response.formatted),),
            {"budget": response.budget},
        )

    def read(self, rollout: Rollout) -> Rollout:
        """Read the answer up to the cut, even if it has not ended."""
        sampled = rollout.of("response")
        found = replay(rollout.prompt, rollout.of("hint"), sampled, self.longest, self.reader)
        answers = (Answer(found.answer, bool(found.answer)),)
        return replace(rollout, thinking_tokens=found.thinking_tokens, answers=answers)

    def columns(self, rollouts: Sequence[Rollout]) -> dict[str, Tensor]:
        answers = [_only(rollout) for rollout in rollouts]
        written = [len(rollout.of("response")) for rollout in rollouts]
        counted = [len(rollout.of("hint")) * self.count_hint for rollout in rollouts]
        correct_B = torch.tensor([answer.correct for answer in answers])
        formatted_B = torch.tensor([answer.formatted for answer in answers])
        return {
            "correct": correct_B,
            "formatted": formatted_B,
            "accuracy": correct_B.float(),
            "length": torch.tensor([float(a + b) for a, b in zip(written, counted, strict=True)]),
            "thinking": torch.tensor([rollout.thinking_tokens for rollout in rollouts]),
            "truncated": ~formatted_B,
            "sampled": torch.tensor(written),
            "unjudged": torch.tensor([_failed(answer) for answer in answers]),
            "budget": torch.tensor([float(rollout.tags["budget"] or 0) for rollout in rollouts]),
        }

    def show(self, rollout: Rollout, reward: float) -> Mapping[str, object]:
        return {
            "problem": rollout.prompt.problem.question,
            "answer": rollout.prompt.problem.answer,
            "hint": self.reader.text(rollout.of("hint")),
            "thought": self.reader.text(rollout.of("response")[: rollout.thinking_tokens]),
            "answered": _only(rollout).text,
            "reward": reward,
        }


class HintedPlan(PlainPlan):
    """Plain responses in subgroups, each with the hint of another budget before its thought.

    HBPO (arXiv 2507.15844, §3.1): `settings.row_budgets` has one budget per rollout of a prompt.
    Where `settings.row_hints` is false a rollout has a budget and no hint.
    """

    kind: ClassVar[str] = "hinted"
    ragged: ClassVar[bool] = False

    def __init__(self, settings: Any, reader: Reader) -> None:
        super().__init__(settings, reader)
        self.count_hint = settings.count_hint
        self.loss_on_hint = settings.loss_on_hint
        texts = {b: settings.hint.format(budget=b) for b in settings.budgets}
        encode = reader.tokenizer.encode
        rows = zip(settings.row_budgets, settings.row_hints, strict=True)
        self._hints: list[Hint] = [(b, tuple(encode(texts[b])) if told else ()) for b, told in rows]

    def hints(self, size: int) -> list[Hint]:
        return self._hints


class TruncatedPlan:
    """Thoughts cut at every budget, and summaries after each cut.

    AnytimeReasoner (arXiv 2505.13438, §3.1). The trunk has a node for every segment between
    budgets, the branches are the summaries; a natural end is copied to the head of each branch.
    The end marker of a thought belongs to the segment that it ends: a thought of exactly b tokens
    has ended within budget b.
    Beside `ALWAYS`: `summary_correct` (B, m, A), bool: right, and in form; `cut` (B, m): tokens of
    thought before each cut, -1 where the text ended inside the thought.
    """

    kind: ClassVar[str] = "truncated"
    makes: ClassVar[frozenset[str]] = ALWAYS | {"summary_correct", "cut"}
    ragged: ClassVar[bool] = True

    def __init__(self, settings: Any, reader: Reader) -> None:
        if settings.summary_tokens <= len(reader.form.close.ids):
            raise ValueError(
                f"method.summary_tokens: closing a thought alone takes {len(reader.form.close.ids)}"
            )
        self.reader = reader
        self._settings = settings
        self._budgets: tuple[int, ...] = settings.budgets

    def rollouts(self, prompts: Sequence[Prompt], sizes: Sequence[int]) -> Rounds[list[Rollout]]:
        settings = self._settings
        found = yield from thoughts(
            list(zip(prompts, sizes, strict=True)),
            self.reader,
            budgets=self._budgets,
            summaries=settings.summaries,
            summary_tokens=settings.summary_tokens,
            grace=settings.grace,
        )
        return [self._rollout(thought) for thought in found]

    def _rollout(self, thought: Truncated) -> Rollout:
        starts = (0, *self._budgets[:-1])
        ours = [cut is not None and bool(cut.close) for cut in thought.cuts]
        ends = [
            budget if closed else len(thought.sampled)
            for budget, closed in zip(self._budgets, ours, strict=True)
        ]
        nodes = [
            Node(thought.sampled[start:end], "thought", parent=s - 1 if s else None, place=(s,))
            for s, (start, end) in enumerate(zip((0, *ends), ends, strict=False))
            if start < min(end, len(thought.sampled))
        ]
        segments = len(nodes)
        answers = []
        for j, cut in enumerate(thought.cuts):
            if cut is None:
                continue
            seen, head = cut.kept, cut.close
            if not head:
                seen, head = seen - 1, (thought.sampled[cut.kept - 1],)
            parent = max(s for s in range(segments) if starts[s] <= seen)
            for a, summary in enumerate(thought.summaries[j]):
                ids, after = (*head, *summary.sampled), seen - starts[parent]
                nodes.append(Node(ids, "summary", parent, after, len(head), place=(j, a)))
                answers.append(Answer(summary.answer, summary.formatted, (j, a)))
        tags: dict[str, Any] = {"closed_by_us": thought.cuts[-1] is None or ours[-1]}
        tags["cuts"] = [-1 if cut is None else cut.kept for cut in thought.cuts]
        tags["drawn"] = len(thought.sampled) + sum(
            len(summary.sampled) for place in thought.summaries for summary in place
        )
        return Rollout(thought.prompt, tuple(nodes), thought.thinking_tokens, tuple(answers), tags)

    def read(self, rollout: Rollout) -> Rollout:
        raise ValueError("the summaries of a thought are read where it was cut: edit none of them")

    def columns(self, rollouts: Sequence[Rollout]) -> dict[str, Tensor]:
        shape = (len(rollouts), len(self._budgets), self._settings.summaries)
        correct_BmA = torch.zeros(shape, dtype=torch.bool)
        for i, rollout in enumerate(rollouts):
            for answer in rollout.answers or ():
                correct_BmA[(i, *answer.place)] = answer.correct
        thinking = [min(rollout.thinking_tokens, self._budgets[-1]) for rollout in rollouts]
        unjudged = [sum(map(_failed, rollout.answers or ())) for rollout in rollouts]
        return {
            "summary_correct": correct_BmA,
            "cut": torch.tensor([r.tags["cuts"] for r in rollouts]).reshape(shape[:2]),
            "accuracy": correct_BmA[:, -1].float().mean(-1),
            "length": torch.tensor([len(rollout.of("thought")) for rollout in rollouts]),
            "thinking": torch.tensor(thinking),
            "truncated": torch.tensor([bool(r.tags["closed_by_us"]) for r in rollouts]),
            "sampled": torch.tensor([r.tags["drawn"] for r in rollouts]),
            "unjudged": torch.tensor(unjudged),
            "budget": torch.zeros(len(rollouts)),
        }

    def show(self, rollout: Rollout, reward: float) -> Mapping[str, object]:
        answered: dict[str, list[str]] = {str(budget): [] for budget in self._budgets}
        for answer in rollout.answers or ():
            answered[str(self._budgets[answer.place[0]])].append(answer.text)
        thought = rollout.of("thought")
        return {
            "problem": rollout.prompt.problem.question,
            "answer": rollout.prompt.problem.answer,
            "thought": self.reader.text(thought[: rollout.thinking_tokens]),
            "answered": answered,
        }


def _only(rollout: Rollout) -> Answer:
    """The answer of a rollout that has been read."""
    assert rollout.answers is not None
    (answer,) = rollout.answers
    return answer


def _failed(answer: Answer) -> bool:
    return answer.verdict is not None and answer.verdict.failure is not None
