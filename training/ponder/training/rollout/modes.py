"""Responses in modes: forced to answer at once, forced to think, or free."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from ponder.engine.protocol import Chunk

from ..method.batch import Answer, Node, Prompt, Rollout
from .drive import Life, Rounds, advance, uniforms
from .kinds import PlainPlan
from .plans import Reader, replay

INSTANT, THINKING, FREE = "instant", "thinking", "free"


class ModesPlan(PlainPlan):
    """Forces some of a prompt's rollouts to answer at once and some to think; the rest are free.

    A²FM (arXiv 2510.12838): the head of the thought forces a mode: the close text or `opening`.
    Heads carry no loss. Adds two columns (B,), bool, to those of `PlainPlan`: `forced`, and
    `thought`: the response has thinking tokens.
    """

    kind: ClassVar[str] = "modes"
    makes: ClassVar[frozenset[str]] = PlainPlan.makes | {"forced", "thought"}
    ragged: ClassVar[bool] = False
    instant: ClassVar[int]
    thinking: ClassVar[int]
    opening: ClassVar[str]

    def __init__(self, settings: Any, reader: Reader) -> None:
        super().__init__(settings, reader)
        self._heads = {
            INSTANT: tuple(reader.form.close.ids),
            THINKING: tuple(reader.tokenizer.encode(self.opening)),
            FREE: (),
        }
        if (longest := max(map(len, self._heads.values()))) >= self.longest:
            raise ValueError(
                f"method.longest must be above the {longest} tokens that force a mode: raise it"
            )

    def _modes(self, size: int) -> list[str]:
        modes = [INSTANT] * self.instant + [THINKING] * self.thinking
        return modes + [FREE] * (size - len(modes))

    def _life(self, prompt: Prompt, mode: str) -> Life:
        ids = (*prompt.ids, *self._heads[mode])
        if mode == INSTANT:
            return self.reader.start(ids, 0, grace=0, answer=self.longest, apart=False)
        return self.reader.start(ids, self.longest, grace=0, answer=1, apart=False)

    def rollouts(self, prompts: Sequence[Prompt], sizes: Sequence[int]) -> Rounds[list[Rollout]]:
        asked = [
            (prompt, mode)
            for prompt, size in zip(prompts, sizes, strict=True)
            for mode in self._modes(size)
        ]
        noise = [uniforms(p.key, n, self.longest) for p, n in zip(prompts, sizes, strict=True)]
        lives = [[self._life(prompt, mode)] for prompt, mode in asked]
        left = [self.longest - len(self._heads[mode]) for _, mode in asked]
        written = yield from advance(lives, torch.cat(noise), left)
        return [
            self._moded(prompt, mode, tuple(ids))
            for (prompt, mode), ids in zip(asked, written, strict=True)
        ]

    def _moded(self, prompt: Prompt, mode: str, sampled: tuple[int, ...]) -> Rollout:
        head = self._heads[mode]
        nodes = (Node(head, "hint", learnt=False), Node(sampled, "response", parent=0))
        thinking, answer = self._answered(prompt, mode, sampled)
        tags = {"budget": None, "mode": mode}
        return Rollout(
            prompt, nodes if head else (Node(sampled, "response"),), thinking, (answer,), tags
        )

    def _answered(self, prompt: Prompt, mode: str, sampled: tuple[int, ...]) -> tuple[int, Answer]:
        """Thinking tokens, and the answer."""
        if mode != INSTANT:
            found = replay(prompt, self._heads[mode], sampled, self.longest, self.reader)
            return found.thinking_tokens, Answer(found.answer, found.formatted)
        life = self._life(prompt, mode)
        life.feed(Chunk(list(sampled), "stop" if sampled[-1] in life.segment.eos else "length"))
        ended = life.thought.outcome.finish_reason == "stop"
        return 0, Answer(life.answer, ended and not self.reader.closes(sampled))

    def read(self, rollout: Rollout) -> Rollout:
        """Read the answer up to the cut, even if it has not ended."""
        sampled = rollout.of("response")
        thinking, answer = self._answered(rollout.prompt, rollout.tags["mode"], sampled)
        said = replace(answer, formatted=bool(answer.text))
        return replace(rollout, thinking_tokens=thinking, answers=(said,))

    def columns(self, rollouts: Sequence[Rollout]) -> dict[str, Tensor]:
        return {
            **super().columns(rollouts),
            "forced": torch.tensor([rollout.tags["mode"] != FREE for rollout in rollouts]),
            "thought": torch.tensor([rollout.thinking_tokens > 0 for rollout in rollouts]),
        }
