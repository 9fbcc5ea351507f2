"""The components that `method.add` can name: shipped ones, or one's own `package.module:Name`.

method:
  method: hbpo
  add:
    - aspo: {delta: -2, k: 0.7}
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Annotated, Any

from pydantic import PlainSerializer, PlainValidator, ValidationError

from .a2fm import A2fm
from .adora import Adora
from .aspo import Aspo
from .d3s import D3s
from .dot import Dot
from .lite_ppo import LitePpo
from .progrpo import ProGrpo
from .riskpo import RiskPo
from .stages import PLACES, Component
from .t1 import T1
from .tppo import TPpo
from .treepo import TreePo
from .v0 import V0

COMPONENTS: dict[str, type[Component]] = {
    "a2fm": A2fm,
    "adora": Adora,
    "aspo": Aspo,
    "d3s": D3s,
    "dot": Dot,
    "lite_ppo": LitePpo,
    "progrpo": ProGrpo,
    "riskpo": RiskPo,
    "t1": T1,
    "tppo": TPpo,
    "treepo": TreePo,
    "v0": V0,
}

CONFLICTS: dict[tuple[str, str], str] = {
    ("lite_ppo", "hbpo"): "hbpo normalises across its budgets itself: use it with another method",
    ("lite_ppo", "riskpo"): "both divide by a std of their own: remove one of them",
    ("riskpo", "hbpo"): "a bundle's papers mix budgets that hbpo compares: use another method",
    ("a2fm", "hbpo"): "hbpo hints at thoughts that a2fm suppresses: use another method",
    ("a2fm", "brpo"): "brpo's rollouts are cut thoughts: use another method",
    ("a2fm", "treepo"): "rollouts in forced modes share no beginning: remove one of them",
    ("a2fm", "v0"): "a2fm forces a fixed number of a prompt's rollouts: remove one of them",
    ("t1", "a2fm"): "t1 probes thoughts, and a2fm forces some away: remove one of them",
    ("t1", "brpo"): "brpo answers after every budget itself: use another method",
    ("tppo", "dapo"): "dynamic sampling would replace unfinished groups: use another method",
    ("tppo", "htpo"): "dynamic sampling would replace unfinished groups: use another method",
    ("tppo", "brpo"): "brpo's thoughts are cut where they are sampled: use another method",
    ("tppo", "treepo"): "a tree is grown in one step: remove one of them",
    ("tppo", "a2fm"): "modes are forced in one step: remove one of them",
    ("tppo", "v0"): "v0 cannot resize groups that continue: remove one of them",
    ("tppo", "t1"): "t1 cuts whole thoughts, and tppo's are unfinished: remove one of them",
    ("treepo", "hbpo"): "rollouts with hints of different budgets cannot share a beginning: use "
    "another method",
    ("treepo", "brpo"): "brpo's rollouts are a tree of their own: use another method",
    ("treepo", "riskpo"): "both compare a rollout with others, in different groups: remove one of "
    "them",
    ("v0", "hbpo"): "hbpo's subgroups fix how many rollouts a prompt has: use another method",
    ("v0", "riskpo"): "a bundle's papers need groups of one size: remove one of them",
}
"""Contradictory pairs of components, or of a component and a method, with the remedy."""


def conflict(method: str, names: Sequence[str]) -> str | None:
    """A sentence on what is wrong with these components on a method; None if they fit."""
    for i, name in enumerate(names):
        if name in COMPONENTS and name in names[:i]:
            return f"{name} is listed twice: list it once"
    chosen = {method, *names}
    for (one, other), remedy in CONFLICTS.items():
        if {one, other} <= chosen:
            return f"{one} does not go with {other}: {remedy}"
    return None


@dataclass(frozen=True, slots=True)
class Addition:
    """A component by the name that the recipe gave it."""

    name: str
    component: Component


def find(name: str) -> type[Component]:
    """The component of a name in the table, or of `package.module:Name`.

    Raises `ValueError` that lists the components.
    """
    if name in COMPONENTS:
        return COMPONENTS[name]
    module, colon, attribute = name.partition(":")
    if not colon:
        close = difflib.get_close_matches(name, COMPONENTS, n=1)
        raise ValueError(
            f"no component {name!r}: {f'did you mean {close[0]}? T' if close else 't'}here are "
            f"{', '.join(COMPONENTS)}, and your own as package.module:Name"
        )
    try:
        found = getattr(import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"{name}: {error}: it must be importable where the run starts") from error
    if not (isinstance(found, type) and issubclass(found, Component)):
        raise ValueError(f"{name} is no component: derive it from method.stages.Component")
    place = getattr(found, "at", None)
    if place is not None and place not in PLACES:
        raise ValueError(f"{name} has at = {place!r}: it must be one of {', '.join(PLACES)}")
    return found


def _read(raw: Any) -> Addition:
    if isinstance(raw, Addition):
        return raw
    if not (isinstance(raw, Mapping) and len(raw) == 1):
        raise ValueError("each entry must be one component with its settings: {aspo: {k: 0.5}}")
    ((name, settings),) = raw.items()
    kind = find(str(name))
    try:
        return Addition(str(name), kind.model_validate({} if settings is None else settings))
    except ValidationError as error:
        wrong = (f"{'.'.join([name, *map(str, e['loc'])])}: {e['msg']}" for e in error.errors())
        known = ", ".join(kind.model_fields) or "no settings"
        raise ValueError(f"{'; '.join(wrong)} ({name} has {known})") from error


def _written(addition: Addition) -> dict[str, Any]:
    return {addition.name: addition.component.model_dump(mode="json")}


Added = Annotated[Addition, PlainValidator(_read), PlainSerializer(_written)]
