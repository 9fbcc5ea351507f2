"""The rollouts of each step, drawn when it begins or during the updates of the step before."""

from __future__ import annotations

from concurrent.futures import Future, wait
from contextlib import ExitStack
from dataclasses import dataclass
from threading import Thread

from ..engines.protocol import TrainingEngine
from ..rollout.drive import Sampler
from ..rollout.experience import Collector, Experience, Rolled


@dataclass(frozen=True, slots=True)
class _Coming:
    """Rollouts that are being drawn, from the weights after `updates` updates."""

    rolled: Future[Rolled]
    updates: int
    sampling: ExitStack


class Rollouts:
    """The rollouts of every step up to `steps`, in their order.

    With `ahead` a thread draws the next step's rollouts while the caller updates the weights, so
    that the rollouts are one step older than the weights that learn from them. The thread only
    draws and judges: the caller does all that synchronises processes, handing out weights included.
    """

    def __init__(
        self, engine: TrainingEngine, collector: Collector, *, steps: int, ahead: bool
    ) -> None:
        self._engine = engine
        self._collector = collector
        self._steps = steps
        self._ahead = ahead
        self._coming: _Coming | None = None

    def take(self, step: int) -> tuple[Experience, int]:
        """The experience of `step`, counted from 1, and how many updates ago it was drawn.

        Raises the errors of drawing it.
        """
        engine = self._engine
        coming, self._coming = self._coming, None
        if coming is None:
            coming = self._begun(step, apart=False)
        with coming.sampling:  # credit may score, which needs the weights that the sampler gathered
            experience = self._collector.credit(coming.rolled.result(), engine.share)
        if self._ahead and step < self._steps:
            self._coming = self._begun(step + 1, apart=True)
        return experience, engine.updates - coming.updates

    def settle(self) -> None:
        """Wait until nothing is being drawn, so that others may sample, even other weights."""
        if self._coming is not None:
            wait([self._coming.rolled])

    def _begun(self, step: int, *, apart: bool) -> _Coming:
        with ExitStack() as stack:
            sample = stack.enter_context(self._engine.sampler())
            coming = _Coming(Future(), self._engine.updates, stack.pop_all())
        if apart:
            # A daemon: a failed or interrupted run does not wait for rollouts that it cannot use.
            Thread(target=self._draw, args=(step, sample, coming.rolled), daemon=True).start()
        else:
            self._draw(step, sample, coming.rolled)
        return coming

    def _draw(self, step: int, sample: Sampler, rolled: Future[Rolled]) -> None:
        try:
            rolled.set_result(self._collector.roll_out(step - 1, sample, self._engine.share))
        except BaseException as error:  # noqa: BLE001
            rolled.set_exception(error)  # `take` raises it again
