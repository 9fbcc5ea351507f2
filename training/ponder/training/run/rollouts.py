"""What each step learns from, drawn when it begins or while the step before is learnt from."""

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
    """Rollouts that are being drawn, with the weights that `updates` updates had made."""

    rolled: Future[Rolled]
    updates: int
    sampling: ExitStack


class Rollouts:
    """The rollouts of every step up to `steps`, in their order.

    With `ahead` a thread draws those of the next step while the caller updates the weights, so that
    they are one step older than what learns from them. Drawing and judging alone run there: what
    meets other processes, handing out weights among it, remains the caller's.
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
        """What `step`, counted from 1, learns from, and how many updates ago it was drawn.

        Raises what its drawing raised.
        """
        engine = self._engine
        coming, self._coming = self._coming, None
        if coming is None:
            coming = self._begun(step, apart=False)
        with coming.sampling:  # credit may score, with weights that the sampler holds together
            experience = self._collector.credit(coming.rolled.result(), engine.share)
        if self._ahead and step < self._steps:
            self._coming = self._begun(step + 1, apart=True)
        return experience, engine.updates - coming.updates

    def settle(self) -> None:
        """Return when nothing is being drawn: others may sample then, and from other weights."""
        if self._coming is not None:
            wait([self._coming.rolled])

    def _begun(self, step: int, *, apart: bool) -> _Coming:
        with ExitStack() as stack:
            sample = stack.enter_context(self._engine.sampler())
            coming = _Coming(Future(), self._engine.updates, stack.pop_all())
        if apart:
            # A daemon: a run that fails or is interrupted does not wait for what it will not use.
            Thread(target=self._draw, args=(step, sample, coming.rolled), daemon=True).start()
        else:
            self._draw(step, sample, coming.rolled)
        return coming

    def _draw(self, step: int, sample: Sampler, rolled: Future[Rolled]) -> None:
        try:
            rolled.set_result(self._collector.roll_out(step - 1, sample, self._engine.share))
        except BaseException as error:  # noqa: BLE001
            rolled.set_exception(error)  # raised again where it is taken
