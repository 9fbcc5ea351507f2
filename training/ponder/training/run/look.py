"""A quick look at a base before training: samples its thoughts on a few dozen problems.

It measures the base's natural length, its accuracy, and whether it obeys budget hints; the settings
and their warnings follow from that.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import torch

from ponder.tasks.problems import Task, at_most

from ..base import Base
from ..rollout.drive import Sampler
from ..rollout.experience import Judge
from ..rollout.plans import Hint, Reader, Response, hinted
from ..rollout.sampler import sample
from .recipe import PolicyRecipe, RecipeError
from .watch import quieten

PROBLEMS = 32
SAMPLES = 2
LONGEST = 8192
"""Most tokens of a response in a look; a longer response is cut off."""


@dataclass(frozen=True, slots=True)
class Seen:
    """One response: tokens of the whole, of its thought and of its answer."""

    written: int
    thinking: int
    ended: bool  # thought and answer ended by themselves
    correct: bool

    @property
    def answering(self) -> int:
        return self.written - self.thinking


@dataclass(frozen=True, slots=True)
class Look:
    """The measurements of a base.

    `longest` are the most tokens of a response, `prompt` the longest prompt's tokens, `room` the
    tokens that the base's positions leave for a response. `hinted` has the responses under each
    promised budget. `shown` is one response as text: question, reference, answer.
    """

    parameters: int
    longest: int
    prompt: int
    room: int
    natural: tuple[Seen, ...]
    hinted: dict[int, tuple[Seen, ...]]
    shown: tuple[str, str, str]

    @property
    def accuracy(self) -> float:
        return fmean(seen.correct for seen in self.natural)

    @property
    def mean(self) -> float:
        """Mean tokens of a natural response; a lower bound where some were cut off."""
        return fmean(seen.written for seen in self.natural)

    @property
    def thinking(self) -> float:
        return fmean(seen.thinking for seen in self.natural)

    @property
    def unfinished(self) -> float:
        return fmean(not seen.ended for seen in self.natural)

    def length(self, share: float) -> int:
        """The quantile `share` of the natural responses' lengths in tokens."""
        ordered = sorted(seen.written for seen in self.natural)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]

    def beyond(self, longest: int) -> float:
        """Share of the natural responses that are longer."""
        return fmean(seen.written > longest for seen in self.natural)

    @property
    def answer(self) -> int:
        """The 90th percentile of the answers' lengths in tokens; 0 where no answer ended."""
        ended = sorted(seen.answering for seen in self.natural if seen.ended)
        return ended[int(0.9 * (len(ended) - 1))] if ended else 0

    @property
    def obedience(self) -> float | None:
        """Thinking under the largest hint over that under the smallest; None without hints."""
        if len(self.hinted) < 2:
            return None
        low, high = (
            fmean(seen.thinking for seen in self.hinted[budget])
            for budget in (min(self.hinted), max(self.hinted))
        )
        return high / max(low, 1.0)


def look(
    recipe: PolicyRecipe,
    tasks: Sequence[Task],
    judge: Judge,
    hints: Callable[[int], tuple[str, tuple[int, ...]] | None],
) -> Look:
    """Sample the base of `recipe` on training problems of `tasks`.

    `hints` takes the mean length of a natural response and returns the hint and the budgets to try;
    None for no hints. Raises `RecipeError` for a base that cannot be sampled.
    """
    from transformers import AutoModelForCausalLM

    base = Base.find(recipe)
    reader = base.reader(recipe)
    quieten()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    kind = torch.bfloat16 if device == "cuda" else torch.float32
    model = AutoModelForCausalLM.from_pretrained(base.files.name, dtype=kind).to(device).eval()
    sampler = sampler_of(model, recipe)
    try:
        problems = at_most(tasks, PROBLEMS, "train", recipe.seed)
    except ValueError as error:
        raise RecipeError(f"tasks: {error}") from error
    prompts = [reader.prompt(problem, f"look/{problem.id}") for problem in problems]
    prompt = max(len(asked.ids) for asked in prompts)
    room = base.config.get("max_position_embeddings", LONGEST + prompt) - prompt
    longest = min(room, LONGEST)
    if longest < 1:
        raise RecipeError(f"base: its positions leave no room behind prompts of {prompt} tokens")

    def seen(told: Sequence[Hint]) -> tuple[list[Response], list[Seen]]:
        responses = hinted(prompts, told, longest, sampler, reader)
        verdicts = judge([(r.prompt.problem, r.answer) for r in responses])
        return responses, [
            Seen(len(r.sampled), r.thinking_tokens, r.formatted, r.formatted and v.correct)
            for r, v in zip(responses, verdicts, strict=True)
        ]

    responses, natural = seen([(None, ())] * SAMPLES)
    under: dict[int, tuple[Seen, ...]] = {}
    asked = hints(round(fmean(it.written for it in natural)))
    if asked is not None:
        text, budgets = asked
        told = [(b, tuple(reader.tokenizer.encode(text.format(budget=b)))) for b in budgets]
        _, found = seen(told)
        under = {budget: tuple(found[i :: len(told)]) for i, (budget, _) in enumerate(told)}
    return Look(
        sum(p.numel() for p in model.parameters()),
        longest,
        prompt,
        room,
        tuple(natural),
        under,
        _shown(responses, reader),
    )


def sampler_of(model: Any, recipe: PolicyRecipe) -> Sampler:
    """A sampler of a model in this process, with the recipe's settings."""

    def sampler(
        prompts: Sequence[Sequence[int]], noise_BT: torch.Tensor, stop_ids: frozenset[int]
    ) -> list[list[int]]:
        return sample(
            model,
            prompts,
            noise_BT,
            stop_ids=stop_ids,
            temperature=recipe.rollouts.temperature,
            room=recipe.rollouts.cache_bytes,
        )

    return sampler


def _shown(responses: Sequence[Response], reader: Reader) -> tuple[str, str, str]:
    """Question, reference and answer of a response that ended, else the end of the first one."""
    one = next((response for response in responses if response.formatted), responses[0])
    said = one.answer if one.formatted else f"… {reader.text(one.sampled[-40:])}"
    return one.prompt.problem.question, one.prompt.problem.answer, said
