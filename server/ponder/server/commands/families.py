"""`ponder families`: which models Ponder knows how to read, and how it closes their thoughts."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict

from pydantic import BaseModel, Field

from ponder.checkpoint.published import published
from ponder.thought.families import FAMILIES, TAGS, Family

_REST = Family(("<think>, written by the chat template itself",), TAGS)
_WHEN = {
    ("open", "open"): "by the template",
    ("closed", "open"): "by the template when switched on",
    ("model", "open"): "by the template when switched on",
    ("model", "model"): "by the model",
    ("closed", "model"): "by the model when switched on",
}
"""Who opens a thought, by how a prompt ends when nothing is asked and when a thought is."""

Row = Mapping[str, str]


class Options(BaseModel):
    """Print the table of model families: how each is read, and how its thoughts are closed.

    What a chat template does is learnt from the template when a model loads. The table says what
    the published templates of a family do; `ponder contract MODEL` shows it of one model.
    """

    json_output: bool = Field(False, alias="json", description="print the table as JSON")


def run(options: Options) -> int:
    """Print the table; returns 0."""
    rows = [(row, _learnt(row.format.name)) for row in (*FAMILIES, _REST)]
    if options.json_output:
        table = [
            {**asdict(row.format), "needles": row.needles, "published": learnt}
            for row, learnt in rows
        ]
        print(json.dumps(table, indent=2, ensure_ascii=False))
        return 0
    for row, learnt in rows:
        form = row.format
        kind = f", model_type {row.model_type}…" if row.model_type else ""
        print(form.name)
        print(f"  recognised by  {' '.join(map(repr, row.needles))}{kind}")
        print(f"  thought        {form.start!r} … {form.end!r}")
        print(f"  close text     {form.close_text!r} ({form.source})")
        if form.tool_call is not None:
            print(f"  tool marker    {form.tool_call!r}, unless the template shows another")
        tried = sum(learnt["opens"].values())
        print(f"  templates      {f'{tried} published' if tried else 'none was tried'}")
        for name, counts in learnt.items() if tried else ():
            print(f"  {name:13}  {_listed(counts)}")
    return 0


def _learnt(family: str) -> dict[str, dict[str, int]]:
    """What the published templates of a family do, and how many of them."""
    rows = [row for row in published() if row["family"] == family]
    return {
        "opens": _counted(_WHEN[row["own"], row["on"]] for row in rows),
        "switched off": _counted(row["switch"] or "by nothing" for row in rows),
        "efforts": _counted(row["efforts"] or "none" for row in rows),
        "hint": _counted(row["hint"] or "none" for row in rows),
        "calls": _counted(row["calls"] or "none known" for row in rows),
    }


def _counted(values: Iterable[str]) -> dict[str, int]:
    return dict(Counter(values).most_common())


def _listed(counts: Mapping[str, int]) -> str:
    """The values; with how many templates have each, where they differ."""
    return ", ".join(f"{value} ({n})" if len(counts) > 1 else value for value, n in counts.items())
