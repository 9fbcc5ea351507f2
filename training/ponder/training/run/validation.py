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

    `hint` is the base's text for a budget hint. As in training, problems whose prompts have more
    than `longest_prompt` tokens are left out; `notes` say how many. Raises `RecipeError` where
    fewer than `processes` are left, and for hints without a text.
    """

    def __init__(
        self,
        recipe: PolicyRecipe,
        tasks: Sequence[Task],
        reader: Reader,
        judge: Judge,
        *,
        hint: str | None,
        longest_prompt: int | None,
        processes: int,
    ) -> None:
        plan = recipe.validation
        self._reader, self._judge, self._plan = reader, judge, plan
        self._longest = plan.longest or recipe.method.longest + recipe.method.branch_tokens
        self._answer = plan.answer_tokens
        self._grace: int | None = getattr(recipe.method, "grace", None)  # where a method cuts
        sets = {"": tasks, **{name: _tasks(name) for name in plan.also}}
        self._prompts: dict[str, list[Prompt]] = {}
        self.notes: list[str] = []
        for name, found in sets.items():
            prompts = _prompts(recipe, name, found, reader)
            self._prompts[name] = [
                prompt
                for prompt in prompts
                if longest_prompt is None or len(prompt.ids) <= longest_prompt
            ]
            if left_out := len(prompts) - len(self._prompts[name]):
                note = (
                    f"validation{f' on {name}' if name else ''}: {left_out} of {len(prompts)} "
                    f"problems are left out: their prompts have more than {longest_prompt} tokens; "
                    f"{_remedy(recipe)}"
                )
                if len(prompts) - left_out < processes:
                    raise RecipeError(note)
                self.notes.append(note)
        if plan.hints and hint is None:
            raise RecipeError(
                "validation.hints: neither the base nor the method has a hint: leave hints out, or "
                "train with hbpo"
            )
        encode, text = reader.tokenizer.encode, hint or ""
        self._hints = [(b, tuple(encode(text.replace("{budget}", str(b))))) for b in plan.hints]

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
            grace=self._grace,
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


def _remedy(recipe: PolicyRecipe) -> str:
    """What makes room for longer prompts."""
    if recipe.rollouts.longest_prompt is not None:
        return "raise rollouts.longest_prompt"
    return f"the positions of {recipe.base} leave no more: lower method.longest, or the budgets"


def _prompts(
    recipe: PolicyRecipe, name: str, tasks: Sequence[Task], reader: Reader
) -> list[Prompt]:
    try:
        problems = held_out(tasks, recipe.validation.problems, "validation", _SEED)
    except ValueError as error:
        where = f"validation.also: {name}: " if name else "validation.problems: "
        raise RecipeError(f"{where}{error}") from error
    return [reader.prompt(problem, f"validation/{problem.id}") for problem in problems]
