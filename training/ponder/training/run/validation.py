"""Validations of a run: natural thinking, and the recipe's further validations.

Figures without a prefix are of natural thinking on the recipe's tasks; they decide which weights
are best. Other held-out sets, thoughts with a budget hint and truncated thoughts have names of
their own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ponder.tasks.problems import Task, held_out
from ponder.tasks.sources import find_tasks

from ..method.batch import Prompt
from ..rollout.drive import Sampler
from ..rollout.experience import Judge, Share
from ..rollout.plans import Reader, hinted, plain, truncated
from .recipe import PolicyRecipe, RecipeError

_SEED = 1
Sums = dict[str, float]


class Watched:
    """The validation problems of a recipe, as prompts of one reader.

    `hint` is the base's text for a budget hint. Raises `RecipeError` for too few problems, for
    prompts above `room` tokens, and for hints without a text.
    """

    def __init__(
        self,
        recipe: PolicyRecipe,
        tasks: Sequence[Task],
        reader: Reader,
        judge: Judge,
        *,
        hint: str | None,
        room: int | None,
    ) -> None:
        plan = recipe.validation
        self._reader, self._judge, self._plan = reader, judge, plan
        self._longest = plan.longest or recipe.method.longest
        self._answer = plan.answer_tokens
        sets = {"": tasks, **{name: _tasks(name) for name in plan.also}}
        self._prompts = {
            name: _prompts(recipe, name, found, reader, room) for name, found in sets.items()
        }
        if plan.hints and hint is None:
            raise RecipeError(
                "validation.hints: neither the base nor the method has a hint: leave hints out, or "
                "train with hbpo"
            )
        encode = reader.tokenizer.encode
        self._hints = [(b, tuple(encode((hint or "").format(budget=b)))) for b in plan.hints]

    def ask(self, sampler: Sampler, share: Share) -> Sums:
        """Sums over this process's responses: `correct`, `thinking_tokens`, `responses`."""
        plan, reader = self._plan, self._reader
        sums: Sums = {}
        for name, prompts in self._prompts.items():
            mine = prompts[share.rank :: share.world]
            found = plain(mine, plan.samples, self._longest, sampler, reader)
            thinking = [(r.thinking_tokens, r.formatted) for r in found]
            self._add(sums, name, thinking, [(r.prompt, r.answer) for r in found])
        mine = self._prompts[""][share.rank :: share.world]
        if self._hints:
            told = [hint for hint in self._hints for _ in range(plan.samples)]
            found = hinted(mine, told, self._longest, sampler, reader)
            for budget, _ in self._hints:
                under = [r for r in found if r.budget == budget]
                thinking = [(r.thinking_tokens, r.formatted) for r in under]
                self._add(sums, f"hint_{budget}", thinking, [(r.prompt, r.answer) for r in under])
        if plan.budgets:
            self._cut(sums, mine, sampler)
        return sums

    def _cut(self, sums: Sums, mine: Sequence[Prompt], sampler: Sampler) -> None:
        """Sample one thought per sample, cut at every budget and answered once there."""
        plan = self._plan
        found = truncated(
            mine,
            plan.samples,
            sampler,
            self._reader,
            budgets=plan.budgets,
            summaries=1,
            summary_tokens=self._answer + len(self._reader.form.close.ids),
        )
        for j, budget in enumerate(plan.budgets):
            said = [thought.summaries[j][0] if thought.summaries[j] else None for thought in found]
            thinking = [
                (min(thought.thinking_tokens, budget), it is not None and it.formatted)
                for thought, it in zip(found, said, strict=True)
            ]
            answers = [
                (thought.prompt, "" if it is None else it.answer)
                for thought, it in zip(found, said, strict=True)
            ]
            self._add(sums, f"cut_{budget}", thinking, answers)

    def _add(
        self,
        sums: Sums,
        name: str,
        thinking: Sequence[tuple[int, bool]],
        answers: Sequence[tuple[Prompt, str]],
    ) -> None:
        verdicts = self._judge([(prompt.problem, text) for prompt, text in answers])
        prefix = f"{name}/" if name else ""
        right = sum(v.correct and formed for v, (_, formed) in zip(verdicts, thinking, strict=True))
        sums[f"{prefix}correct"] = float(right)
        sums[f"{prefix}thinking_tokens"] = float(sum(tokens for tokens, _ in thinking))
        sums[f"{prefix}responses"] = float(len(thinking))


def means(sums: Mapping[str, float]) -> dict[str, float]:
    """`accuracy` and `thinking_tokens` of every set and mode, from sums over all processes."""
    found: dict[str, float] = {}
    for name, responses in sums.items():
        if name.endswith("responses"):
            prefix = name.removesuffix("responses")
            found[f"{prefix}accuracy"] = sums[f"{prefix}correct"] / responses
            found[f"{prefix}thinking_tokens"] = sums[f"{prefix}thinking_tokens"] / responses
    return found


def _tasks(name: str) -> Sequence[Task]:
    try:
        return find_tasks([name])
    except ValueError as error:
        raise RecipeError(f"validation.also: {error}") from error


def _prompts(
    recipe: PolicyRecipe, name: str, tasks: Sequence[Task], reader: Reader, room: int | None
) -> list[Prompt]:
    try:
        problems = held_out(tasks, recipe.validation.problems, "validation", _SEED)
    except ValueError as error:
        where = f"validation.also: {name}: " if name else "validation.problems: "
        raise RecipeError(f"{where}{error}") from error
    prompts = [reader.prompt(problem, f"validation/{problem.id}") for problem in problems]
    longest = max(len(prompt.ids) for prompt in prompts)
    if room is not None and longest > room:
        raise RecipeError(
            f"method.longest: a validation problem's prompt has {longest} tokens, and the "
            f"positions of {recipe.base} leave {room}: lower it, or the budgets"
        )
    return prompts
