"""The reference of a recipe's fields, from the models that check it."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator
from typing import Annotated, Any, Literal, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from ponder.training.method.components import COMPONENTS, CONFLICTS
from ponder.training.run.changes import models_in
from ponder.training.run.recipe import PolicyRecipe, SftRecipe
from ponder.training.run.shipped import shipped_recipes

HEAD = """# Recipes

A recipe is a YAML file: `ponder train NAME` takes a shipped one, `ponder train PATH.yaml` yours.
One with `traces` is a cold start; any other is reinforcement learning. A field that is not listed
here is an error. `--set` replaces a field by its dotted name, its value in YAML, and may be
repeated:

```console
$ ponder train tiny-hbpo --set optimisation.steps=20 --set "method.budgets=[40, 80]"
```

The run's `recipe.json` has the recipe that was run, with every default.

Written by `deploy/generate.py` from the classes that check a recipe.

## Shipped

| recipe | is |
|---|---|
"""
ADDED = """
### `method.add`

Components on top of any method, each `{name: {its settings}}`; none unless given. Name your own as
`package.module:Name` ([how to write one](extending/method.md)).

```yaml
method:
  method: hbpo
  add:
    - aspo: {k: 0.5}
```
"""
TABLE = "\n| field | type | default | meaning |\n|---|---|---|---|\n"
BOUNDS = {Ge: ("ge", "≥"), Gt: ("gt", ">"), Le: ("le", "≤"), Lt: ("lt", "<")}
NAMES = {str: "text", int: "whole number", float: "number", bool: "true or false"}


def typed(annotation: Any) -> str:
    """`list of whole number`, `text`; `bounds` adds bounds and null."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return typed(arguments[0])
    if origin is Literal:
        return " or ".join(f"`{choice}`" for choice in arguments)
    if origin is dict:
        return "names and values"
    if origin is tuple:
        return f"list of {typed(arguments[0])}"
    if arguments:
        return " or ".join(typed(part) for part in arguments if part is not type(None))
    return NAMES[annotation]


def bounds(field: FieldInfo) -> str:
    found = [
        f"{sign} {getattr(rule, name):,}"
        for rule in field.metadata
        for kind, (name, sign) in BOUNDS.items()
        if isinstance(rule, kind)
    ]
    null = " or null" if type(None) in get_args(field.annotation) else ""
    return (f" {', '.join(found)}" if found else "") + null


def default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    if field.default is PydanticUndefined:
        return "computed"
    return f"`{json.dumps(field.default)}`"


def table(model: type[BaseModel], prefix: str) -> str:
    """A table of a model's own fields; its sections have tables of their own."""
    rows = [
        f"| `{prefix}{name}` | {typed(field.annotation)}{bounds(field)} | {default(field)} | "
        f"{described(model, name, field)} |\n"
        for name, field in model.model_fields.items()
        if not list(models_in(field.annotation)) and name != "add"
    ]
    return TABLE + "".join(rows)


def described(model: type[BaseModel], name: str, field: FieldInfo) -> str:
    """Raises `KeyError` for a field without a description."""
    if not field.description:
        raise KeyError(f"{model.__name__}.{name} has no description")
    return field.description


def sections(model: type[BaseModel]) -> Iterator[str]:
    for name, field in model.model_fields.items():
        for inner in models_in(field.annotation):
            tag = inner.model_fields["method"].default if name == "method" else ""
            title = f"`{name}: {{method: {tag}}}`" if tag else f"`{name}`"
            left_out = ""
            if not field.is_required():
                given = field.default.model_dump(mode="json") if field.default else None
                left_out = f" `{json.dumps(given)}` unless given."
            yield f"\n### {title}\n\n{_words(inner)}{left_out}\n{table(inner, f'{name}.')}"


def components() -> str:
    """The components that `method.add` takes, and their settings."""
    text = ADDED
    for name, component in COMPONENTS.items():
        text += f"\n#### `{name}`\n\n{_words(component)}\n"
        text += table(component, f"{name}.")
    text += "\n#### What does not go together\n\n| | with | remedy |\n|---|---|---|\n"
    rows = ((one, other, remedy) for (one, other), remedy in CONFLICTS.items())
    return text + "".join(f"| `{one}` | `{other}` | {said} |\n" for one, other, said in rows)


def _words(model: type[BaseModel]) -> str:
    return (inspect.getdoc(model) or "").replace("\n", " ").replace("  ", "\n\n")


def render() -> str:
    """The page."""
    text = HEAD + "".join(f"| `{name}` | {it} |\n" for name, it in shipped_recipes().items())
    kinds = (
        ("Cold start", SftRecipe),
        ("Reinforcement learning", PolicyRecipe),
    )
    for title, model in kinds:
        parts = "".join(sections(model))
        if model is PolicyRecipe:
            methods, heading, rest = parts.partition("\n### `rollouts`")
            parts = methods + components() + heading + rest
        text += f"\n## {title}\n\n{_words(model)}\n{table(model, '')}" + parts
    return text
