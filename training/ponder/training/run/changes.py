"""Changes of a recipe (`--set key=value`), and sentences for the errors in it."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from ..method.components import COMPONENTS

_TYPE = re.compile(r"(tuple|literal)\[")


def changed(raw: dict[str, Any], changes: Sequence[str]) -> dict[str, Any]:
    """`raw` with every `dotted.key=value` in it; a value is YAML. Raises `ValueError`."""
    import yaml

    for change in changes:
        key, equals, text = change.partition("=")
        if not (key and equals):
            raise ValueError(f"--set {change}: write key=value, such as optimisation.steps=20")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ValueError(f"--set {change}: the value is not YAML: {error}") from error
        raw = _with(raw, key.split("."), value)
    return raw


def _with(section: Any, path: Sequence[str], value: Any) -> dict[str, Any]:
    """A copy of `section` with `value` at `path`; missing sections are created."""
    name, *rest = path
    inside = section if isinstance(section, dict) else {}
    return {**inside, name: _with(inside.get(name), rest, value) if rest else value}


def sentences(error: ValidationError, kind: type[BaseModel]) -> str:
    """Sentences that name every wrong field by its dotted name, and its condition."""
    wrong = [it for it in error.errors() if it["type"] != "default_factory_not_called"]
    return "; ".join(_sentence(problem, kind) for problem in wrong)


def _sentence(problem: ErrorDetails, kind: type[BaseModel]) -> str:
    # pydantic puts the method's name, and a type of several, into the place of a field.
    place = [str(part) for part in problem["loc"] if not _TYPE.match(str(part))]
    if place[:1] == ["method"]:
        del place[1:2]
    field = ".".join(place) or "recipe"
    match problem["type"]:
        case "model_type" | "model_attributes_type":
            return f"{field}: must be a section, with fields of its own"
        case "missing":
            return f"{field}: is missing"
        case "extra_forbidden":
            known = list(dict.fromkeys(field_paths(kind)))
            if place[-1] == "add" or place[-1] in COMPONENTS:
                return f"{field}: no such field: a method's components belong into method.add"
            close = difflib.get_close_matches(field, known, n=1)
            return f"{field}: no such field" + (f": did you mean {close[0]}?" if close else "")
    message = problem["msg"].removeprefix("Value error, ")
    if found := re.match(r"(?:Input|String|Tuple|List) should ([^,]+)", message):
        given = problem["input"]
        shown = f", not {given!r}" if isinstance(given, str | int | float | None) else ""
        return f"{field}: must {found[1]}{shown}"
    return f"{field}: {message}"


def field_paths(kind: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """The dotted names of all fields, including those of every method."""
    for name, field in kind.model_fields.items():
        yield prefix + name
        for inner in models_in(field.annotation):
            yield from field_paths(inner, f"{prefix}{name}.")


def models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """The sections that a field may hold."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from models_in(part)
