"""Probes: the answers of rollouts if their thoughts were cut short."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import ClassVar

import torch
from torch import Tensor

from ..method.batch import Answer, Prompt, Rollout
from .drive import Life, Rounds, advance, uniforms
from .kinds import PlainPlan

PROBE = "probe_accuracy_"
"""Prefix of measured columns (B,): accuracy at a share of a thought; NaN: not probed."""


class ProbedPlan(PlainPlan):
    """A second round asks some rollouts for an answer after shares of their thoughts.

    T1 (arXiv 2501.11651): the thought is truncated, closed, and answered. Probes only measure;
    training does not use them.
    """

    cuts: ClassVar[tuple[float, ...]]
    probed: ClassVar[int]
    answer_tokens: ClassVar[int]

    def rollouts(self, prompts: Sequence[Prompt], sizes: Sequence[int]) -> Rounds[list[Rollout]]:
        found = yield from super().rollouts(prompts, sizes)
        asked: list[int] = []
        noise: list[Tensor] = []
        begin = 0
        for prompt, size in zip(prompts, sizes, strict=True):
            for n in range(min(self.probed, size)):
                asked.append(begin + n)
                key = f"{prompt.key}/{n}/probe"
                noise.append(uniforms(key, len(self.cuts), self.answer_tokens))
            begin += size
        lives = [[self._cut(found[i], cut)] for i in asked for cut in self.cuts]
        said = yield from advance(lives, torch.cat([*noise, torch.empty(0, self.answer_tokens)]))
        formatted = [
            life.thought.outcome.finish_reason == "stop" and not self.reader.closes(ids)
            for (life,), ids in zip(lives, said, strict=True)
        ]
        for n, i in enumerate(asked):
            answers = tuple(
                Answer(lives[at][0].answer, formatted[at], (at % len(self.cuts),))
                for at in range(n * len(self.cuts), (n + 1) * len(self.cuts))
            )
            drawn = sum(map(len, said[n * len(self.cuts) : (n + 1) * len(self.cuts)]))
            found[i] = replace(
                found[i],
                answers=((found[i].answers or ())[0], *answers),
                tags={**found[i].tags, "probe_tokens": drawn},
            )
        return found

    def _cut(self, rollout: Rollout, share: float) -> Life:
        """A closed thought, cut after this share of the rollout's thought, ready to answer."""
        thought = rollout.of("response")[: int(share * rollout.thinking_tokens)]
        head = (*rollout.prompt.ids, *rollout.of("hint"))
        whole = (*head, *thought, *self.reader.form.close.ids)
        return self.reader.start(whole, 0, grace=0, answer=self.answer_tokens, apart=False)

    def columns(self, rollouts: Sequence[Rollout]) -> dict[str, Tensor]:
        columns = super().columns([_main(rollout) for rollout in rollouts])
        drawn_B = torch.tensor([rollout.tags.get("probe_tokens", 0) for rollout in rollouts])
        columns["sampled"] = columns["sampled"] + drawn_B
        for k, cut in enumerate(self.cuts):
            right = [[a.correct for a in r.answers or () if a.place == (k,)] for r in rollouts]
            values = [float(it[0]) if it else torch.nan for it in right]
            columns[f"{PROBE}{round(100 * cut)}"] = torch.tensor(values)
        return columns

    def show(self, rollout: Rollout, reward: float) -> Mapping[str, object]:
        return super().show(_main(rollout), reward)


def _main(rollout: Rollout) -> Rollout:
    return replace(rollout, answers=(rollout.answers or ())[:1])
