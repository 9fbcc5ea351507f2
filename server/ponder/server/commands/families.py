"""`ponder families`: which models Ponder knows how to read, and how it closes their thoughts."""

from __future__ import annotations

import json
from dataclasses import asdict

from pydantic import BaseModel, Field

from ponder.thought.families import FAMILIES, TAGS, Family

_REST = Family(("<think>, written by the chat template itself",), TAGS)


class Options(BaseModel):
    """Print the table of model families: how each is recognised, and how its thoughts are closed.

    What a model's chat template does (whether it opens the thought, what switches it, which
    efforts it takes) is learnt from the template itself: `ponder contract MODEL` shows it.
    """

    json_output: bool = Field(False, alias="json", description="print the table as JSON")


def run(options: Options) -> int:
    """Print the table; returns 0."""
    rows = [*FAMILIES, _REST]
    if options.json_output:
        table = [{**asdict(row.format), "needles": row.needles} for row in rows]
        print(json.dumps(table, indent=2, ensure_ascii=False))
        return 0
    for row in rows:
        form = row.format
        kind = f", model_type {row.model_type}…" if row.model_type else ""
        print(form.name)
        print(f"  recognised by  {' '.join(map(repr, row.needles))}{kind}")
        print(f"  thought        {form.start!r} … {form.end!r}")
        print(f"  close text     {form.close_text!r} ({form.source})")
    return 0
