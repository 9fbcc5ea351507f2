"""What the chat templates of published models do: a table, and tests try the templates on it."""

from __future__ import annotations

import csv
from pathlib import Path

_TABLE = Path(__file__).with_name("published.csv")


def published() -> list[dict[str, str]]:
    """A row for each template.

    `thinks` is "no", "unread" where Ponder cannot read its thoughts, or "yes": then `own`, `on` and
    `off` say how a prompt ends when nothing is asked, when a thought is and when none is. `switch`
    are the arguments that switch thinking off, `efforts` the effort words that the template takes,
    `hint` is its argument for a number of tokens, and `calls` the parser of its calls.
    """
    return list(csv.DictReader(_TABLE.read_text(encoding="utf-8").splitlines()))
