"""A quick look at a base before it is trained: how it thinks on the problems, by a few dozen.

It says what settings follow from (natural length, accuracy, whether budget hints are obeyed) and
where they cannot work.
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
"""Tokens of a response that is looked at; a longer one is not waited for."""


@dataclass(frozen=True, slots=True)
class Seen:
    """One response: tokens of all it wrote, of its thought and of its answer."""

    written: int
    thinking: int
    ended: bool  # thought and answer ended by themselves
    correct: bool

    @property
    def answering(self) -> int:
        return self.written - self.thinking


@dataclass(frozen=True, slots=True)
class Look:
    """What was seen of a base.

    `longest` is how long a response might get, `prompt` the longest prompt's tokens, `room` what
    the base's positions leave to a response. `hinted` has the responses under each budget that was
    promised. `shown` is one response as text: question, reference, answer.
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
        """Tokens of a natural response, on average; at least, where some were not waited for."""
        return fmean(seen.written for seen in self.natural)

    @property
    def thinking(self) -> float:
        return fmean(seen.thinking for seen in self.natural)

    @property
    def unfinished(self) -> float:
        return fmean(not seen.ended for seen in self.natural)

    def length(self, share: float) -> int:
        """Tokens that `share` of the natural responses do not exceed."""
        ordered = sorted(seen.written for seen in self.natural)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]

    def beyond(self, longest: int) -> float:
        """Share of the natural responses that are longer."""
        return fmean(seen.written > longest for seen in self.natural)

    @property
    def answer(self) -> int:
        """Tokens that nine of ten answers do not exceed; 0 where none ended."""
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

    `hints` gets the mean length of a natural response and says which hint to try with which
    budgets; None for none. Raises `RecipeError` for a base that cannot be asked.
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
    """One that samples a model here, as the recipe has it."""

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
    """A response that ended, if there is one; else the end of what the first one wrote."""
    one = next((response for response in responses if response.formatted), responses[0])
    said = one.answer if one.formatted else f"… {reader.text(one.sampled[-40:])}"
    return one.prompt.problem.question, one.prompt.problem.answer, said
