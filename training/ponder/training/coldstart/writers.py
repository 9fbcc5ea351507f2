"""Batches of a cold start as tensors, and processes that write them ahead of a GPU.

One process writes some hundred thousand tokens per second; a GPU learns faster than that.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator, Sequence
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Event
from queue import Empty
from random import Random
from typing import Any, NamedTuple

import torch

from ponder.cage.parent import die_with
from ponder.errors import TrainingError

from .examples import Example, ExampleWriter, batches

_MOST = 12
_AHEAD = 8


class Written(NamedTuple):
    """Right-padded ids (B, T) int64, learnt flags (B, T) bool, and the number of tokens."""

    ids_B_T: torch.Tensor
    learnt_B_T: torch.Tensor
    tokens: int


def collate(batch: Sequence[Example]) -> tuple[torch.Tensor, torch.Tensor]:
    """Right-padded ids (B, T) int64 and learnt flags (B, T) bool; padding is never learnt."""
    longest = max(len(example.ids) for example in batch)
    ids_B_T = torch.zeros(len(batch), longest, dtype=torch.long)
    learnt_B_T = torch.zeros(len(batch), longest, dtype=torch.bool)
    for row, example in enumerate(batch):
        ids_B_T[row, : len(example.ids)] = torch.tensor(example.ids)
        learnt_B_T[row, : len(example.ids)] = torch.tensor(example.learnt)
    return ids_B_T, learnt_B_T


class WrittenAhead(Iterator[Written]):
    """Endless batches of at most `tokens_per_step` tokens from several processes, in turn.

    `key` and the number of processes determine the examples; the time of a call of `terse` decides
    how many batches are terse. `close` ends the processes. Raises `TrainingError` where a process
    has died.
    """

    def __init__(
        self,
        writer: ExampleWriter,
        key: str,
        tokens_per_step: int,
        terse: bool = True,
        processes: int | None = None,
    ) -> None:
        context = multiprocessing.get_context("spawn")
        count = processes or max(1, min(_MOST, (os.cpu_count() or 2) - 2))
        self._terse = context.Event()
        if terse:
            self._terse.set()
        self._queues: list[Queue[Any]] = [context.Queue(_AHEAD) for _ in range(count)]
        self._processes = [
            context.Process(
                target=_write,
                args=(writer, f"{key}/{n}", tokens_per_step, self._terse, queue),
                daemon=True,
            )
            for n, queue in enumerate(self._queues)
        ]
        for process in self._processes:
            process.start()
        self._taken = 0

    def terse(self, wanted: bool) -> None:
        """Set whether examples written from now on are terse."""
        if not wanted:
            self._terse.clear()

    def __next__(self) -> Written:
        turn = self._taken % len(self._queues)
        self._taken += 1
        ids, learnt, tokens = self._taken_from(turn)
        return Written(torch.from_numpy(ids).long(), torch.from_numpy(learnt), tokens)

    def _taken_from(self, turn: int) -> Any:
        while True:
            try:
                return self._queues[turn].get(timeout=1.0)
            except Empty:
                code = self._processes[turn].exitcode
                if code is not None:
                    raise TrainingError(
                        f"a writer of batches ended with {code}: mend what it printed"
                    ) from None

    def close(self) -> None:
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.join()


class _Writer(ExampleWriter):
    """A writer whose event, not its caller, decides whether examples are terse."""

    def __init__(self, writer: ExampleWriter, terse: Event) -> None:
        vars(self).update(vars(writer))
        self._event = terse

    def write(self, rng: Random, terse: bool) -> Example:
        return super().write(rng, self._event.is_set())


def _write(
    writer: ExampleWriter, key: str, tokens_per_step: int, terse: Event, queue: Queue[Any]
) -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    assert parent.pid is not None
    die_with(parent.pid)  # a killed parent would leave it waiting for a place in the queue
    torch.set_num_threads(1)
    for batch in batches(_Writer(writer, terse), Random(key), tokens_per_step, 0):
        ids_B_T, learnt_B_T = collate(batch)
        # Arrays are pickled; tensors would become files shared between processes.
        tokens = sum(len(example.ids) for example in batch)
        queue.put((ids_B_T.short().numpy(), learnt_B_T.numpy(), tokens))
