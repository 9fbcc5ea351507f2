"""Responses that are sampled one window per step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

import torch
from torch import Tensor

from ..method.batch import Answer, Prompt, Rollout
from .drive import Round, Rounds, uniforms
from .kinds import PlainPlan
from .plans import Hint, replay, stop_ids


class WindowedPlan(PlainPlan):
    """Samples at most `window` tokens of each response, behind its tokens in `Prompt.begun`.

    T-PPO (arXiv 2506.15050). A response has the same random numbers as if sampled at once. Adds the
    column `open` (B,), bool, to those of `PlainPlan`: neither ended nor at its longest.
    """

    makes: ClassVar[frozenset[str]] = PlainPlan.makes | {"open"}
    ragged: ClassVar[bool] = True
    window: ClassVar[int]

    def rollouts(self, prompts: Sequence[Prompt], sizes: Sequence[int]) -> Rounds[list[Rollout]]:
        if not prompts:
            return []
        stops = stop_ids(prompts[0], self.longest, self.reader)
        asked: list[tuple[Prompt, Hint]] = []
        begun: list[tuple[int, ...]] = []
        noise: list[Tensor] = []
        for prompt, size in zip(prompts, sizes, strict=True):
            asked += [(prompt, hint) for hint in self.hints(size)]
            begun += prompt.begun or ((),) * size
            noise += uniforms(prompt.key, size, self.longest)
        left = [i for i, ids in enumerate(begun) if self._open(ids, stops)]
        room = self.longest - min((len(begun[i]) for i in left), default=0)
        noise_BT = torch.zeros(len(left), min(self.window, room), dtype=torch.double)
        for row, i in enumerate(left):
            mine_T = noise[i][len(begun[i]) :][: noise_BT.shape[1]]
            noise_BT[row, : len(mine_T)] = mine_T
        whole = [(*asked[i][0].ids, *asked[i][1][1], *begun[i]) for i in left]
        written = (yield Round(whole, noise_BT, stops)) if left else []
        drawn = [0] * len(begun)
        for i, ids in zip(left, written, strict=True):
            news = tuple(ids[: self.longest - len(begun[i])])
            begun[i], drawn[i] = (*begun[i], *news), len(news)
        return [
            self._windowed(prompt, hint, ids, news, self._open(ids, stops))
            for (prompt, hint), ids, news in zip(asked, begun, drawn, strict=True)
        ]

    def _open(self, ids: Sequence[int], stops: frozenset[int]) -> bool:
        return len(ids) < self.longest and (not ids or ids[-1] not in stops)

    def _windowed(
        self, prompt: Prompt, hint: Hint, ids: tuple[int, ...], drawn: int, unfinished: bool
    ) -> Rollout:
        response = replay(prompt, hint[1], ids, self.longest, self.reader)
        rollout = self._rollout(replace(response, budget=hint[0]))
        tags = {**rollout.tags, "open": unfinished, "drawn": drawn}
        answers = (Answer("", formatted=False),) if unfinished else rollout.answers
        return replace(rollout, answers=answers, tags=tags)

    def columns(self, rollouts: Sequence[Rollout]) -> dict[str, Tensor]:
        return {
            **super().columns(rollouts),
            "open": torch.tensor([rollout.tags["open"] for rollout in rollouts]),
            "sampled": torch.tensor([rollout.tags["drawn"] for rollout in rollouts]),
        }
