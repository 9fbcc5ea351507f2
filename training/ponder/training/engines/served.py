"""Rollouts by vLLM servers, over the code that serves.

A server is a stock `vllm serve` that takes new weights while it runs
(docs/howto/training-on-several-machines.md has the command). Each of the servers gets its share of
the prompts.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Sequence
from contextlib import aclosing
from pathlib import Path

import torch

from ponder.engine.http import HttpEngine, load
from ponder.engine.protocol import EngineError, EngineRequest, EngineSetupError, Load, Sampling
from ponder.engine.tokenizer import HFTokenizer, ModelFiles

from ..run.recipe import PolicyRecipe, RecipeError
from .correction import Drawn
from .protocol import Weights, WorkersLost
from .publishing import publisher

PUBLISHED = "published"
"""In a run's directory: the weights that the servers sample from, where they take files."""

_CHUNK = 256


class ServedSampler:
    """Samples with the servers of `recipe.rollouts.servers`, from weights that `load` publishes.

    `rank` is this process's among the trainer's, and `wait` returns when all of them are there.
    `drawn` has the log-probabilities of what was sampled, by the version of
    the weights: the last one, and the one before where rollouts are drawn a step ahead.
    """

    def __init__(
        self,
        base: ModelFiles,
        recipe: PolicyRecipe,
        out: Path,
        *,
        rank: int = 0,
        wait: Callable[[], object] = lambda: None,
    ) -> None:
        urls = [url.rstrip("/") for url in recipe.rollouts.servers]
        directory = out.resolve() / PUBLISHED
        self._publisher = publisher(recipe.rollouts.transfer, urls, directory, rank)
        self._wait = wait
        self._numbers = itertools.count()
        self._runner = asyncio.Runner()
        self._versions = 1 + recipe.rollouts.steps_ahead
        self._now = Drawn()
        self.drawn: dict[int, Drawn] = {}
        vocabulary = HFTokenizer(base.directory)
        try:
            self._engines = [
                load(
                    Load(
                        name=base.name,
                        directory=base.directory,
                        served_as=base.label,
                        vocabulary=vocabulary,
                        options=[url],
                    )
                )
                for url in urls
            ]
        except EngineSetupError as error:
            raise RecipeError(f"rollouts.servers: {error}") from error

    def load(self, weights: Weights, version: int) -> None:
        """Have every server sample from `weights`, in bfloat16."""
        self._publisher.publish(weights)
        self._wait()
        self._now = Drawn()
        self.drawn = dict([*self.drawn.items(), (version, self._now)][-self._versions :])

    def sample(
        self,
        temperature: float,
        prompts: Sequence[Sequence[int]],
        noise_BT: torch.Tensor,
        stop_ids: frozenset[int],
    ) -> list[list[int]]:
        """A `Sampler` once its temperature is given; of `noise_BT` only the width counts."""
        asked = Sampling(
            max_tokens=noise_BT.shape[1],
            temperature=temperature,
            stop_token_ids=tuple(sorted(stop_ids)),
            ignore_eos=True,
            logprobs=0,
            chunk_tokens=_CHUNK,
        )
        try:
            found = self._runner.run(self._all(prompts, asked))
        except ExceptionGroup as group:
            if (lost := group.subgroup(EngineError)) is None:
                raise
            raise WorkersLost(
                f"rollouts.servers: {lost.exceptions[0]}; mend that, then go on from the last "
                "checkpoint with --resume"
            ) from group
        for prompt, (ids, log_probs) in zip(prompts, found, strict=True):
            self._now.note(prompt, ids, log_probs)
        return [ids for ids, _ in found]

    async def _all(
        self, prompts: Sequence[Sequence[int]], asked: Sampling
    ) -> list[tuple[list[int], list[float]]]:
        """Of every prompt. Neighbours, which are often copies, go to the same server."""
        servers = [i * len(self._engines) // len(prompts) for i in range(len(prompts))]
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(self._one(self._engines[server], prompt, asked))
                for server, prompt in zip(servers, prompts, strict=True)
            ]
        return [task.result() for task in tasks]

    async def _one(
        self, engine: HttpEngine, prompt: Sequence[int], asked: Sampling
    ) -> tuple[list[int], list[float]]:
        request = EngineRequest(prompt, asked, id=f"rollout-{next(self._numbers)}")
        ids: list[int] = []
        log_probs: list[float] = []
        async with aclosing(engine.generate(request)) as stream:
            async for chunk in stream:
                ids += chunk.token_ids
                log_probs += [entry.logprob for entry in chunk.logprobs or ()]
        return ids, log_probs

    def close(self) -> None:
        async def end() -> None:
            for engine in self._engines:
                engine.shutdown()

        self._runner.run(end())
        self._runner.close()
        self._publisher.close()
