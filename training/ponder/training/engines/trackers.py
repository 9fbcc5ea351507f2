"""The trackers that accelerate can tell a run's figures, by name."""

from __future__ import annotations

from collections.abc import Sequence


def missing(names: Sequence[str]) -> list[str]:
    """Those of `names` whose package is not installed. Raises `ValueError` for unknown names."""
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers

    for name in names:
        if name not in LOGGER_TYPE_TO_CLASS:
            raise ValueError(f"{name} is not a known tracker: name some of {_listed()}")
    available = {str(tracker) for tracker in get_available_trackers()}
    return [name for name in names if name not in available]


def _listed() -> str:
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS

    return ", ".join(sorted(LOGGER_TYPE_TO_CLASS))
