"""Rollouts by vLLM servers, over the code that serves: weights reach them as a checkpoint on disk.

A server is a stock `vllm serve` that lets itself be told to reload, and sees the run's directory
under the same path (docs/howto/training-on-several-machines.md has the command). Each of the
servers gets its share of the prompts.
"""

from __future__ import annotations

import asyncio
import itertools
import shutil
from collections.abc import Callable, Iterable, Sequence
from contextlib import aclosing
from pathlib import Path

import httpx
import torch
from safetensors.torch import save_file

from ponder.engine.http import HttpEngine, load
from ponder.engine.protocol import EngineError, EngineRequest, EngineSetupError, Load, Sampling
from ponder.engine.tokenizer import HFTokenizer, ModelFiles

from ..run.recipe import PolicyRecipe, RecipeError
from .correction import Drawn
from .protocol import WorkersLost

PUBLISHED = "published"
"""In a run's directory: the weights that the servers sample from."""

_CHUNK = 256
_RELOAD_SECONDS = 600.0
_RELOADS = (
    "VLLM_SERVER_DEV_MODE=1 vllm serve MODEL --enable-scale-out --logprobs-mode processed_logprobs"
)


class ServedSampler:
    """Samples with the servers of `recipe.rollouts.servers`, from weights that `load` publishes.

    `main` says that this process writes them and tells the servers; `wait` returns when all
    processes are there. `drawn` has the log-probabilities of what was sampled, by the version of
    the weights: the last one, and the one before where rollouts are drawn a step ahead.
    """

    def __init__(
        self,
        base: ModelFiles,
        recipe: PolicyRecipe,
        out: Path,
        *,
        main: bool = True,
        wait: Callable[[], object] = lambda: None,
    ) -> None:
        self._urls = [url.rstrip("/") for url in recipe.rollouts.servers]
        self._directory = out.resolve() / PUBLISHED
        self._main, self._wait = main, wait
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
                for url in self._urls
            ]
        except EngineSetupError as error:
            raise RecipeError(f"rollouts.servers: {error}") from error

    def load(self, weights: Iterable[tuple[str, torch.Tensor]], version: int) -> None:
        """Write the weights in bfloat16, and have every server reload them."""
        kept = {}
        for name, weight in weights:  # of which every process has its part
            if self._main:
                kept[name] = weight.to("cpu", torch.bfloat16).contiguous()
        if self._main:
            self._directory.mkdir(parents=True, exist_ok=True)
            save_file(kept, self._directory / "model.safetensors", metadata={"format": "pt"})
            for url in self._urls:
                _reload(url, self._directory)
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
        if self._main:
            shutil.rmtree(self._directory, ignore_errors=True)


def _reload(url: str, directory: Path) -> None:
    """Have a server replace its weights, and forget what it cached with the old ones."""
    call = {"method": "reload_weights", "kwargs": {"weights_path": str(directory)}}
    try:
        with httpx.Client(base_url=url, timeout=_RELOAD_SECONDS, trust_env=False) as client:
            for path, body in (("/collective_rpc", call), ("/reset_prefix_cache", {})):
                reply = client.post(path, json=body)
                if reply.status_code == 404:
                    raise RecipeError(
                        f"rollouts.servers: {url} takes no new weights: start it as\n{_RELOADS}"
                    )
                reply.raise_for_status()
    except httpx.HTTPError as error:
        raise WorkersLost(
            f"rollouts.servers: {url} did not reload {directory}: {error or repr(error)}; it must "
            "see that directory, and its log says more"
        ) from error
