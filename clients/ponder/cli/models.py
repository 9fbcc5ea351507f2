"""`ponder models`: a server's models, and what each accepts."""

from __future__ import annotations

import sys
from collections.abc import Iterator

from pydantic import Field
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ponder.cli.connection import ServerOptions, explained
from ponder.cli.meter import UNLIMITED
from ponder.client import PonderAPIError
from ponder.protocol.response import Capabilities, ModelCard


class Options(ServerOptions):
    """List a server's models, and what each accepts; lengths and budgets are in tokens."""

    json_output: bool = Field(False, alias="json", description="print the server's list as JSON")


def run(options: Options) -> int:
    """Returns 0 for success, 1 if the server does not answer."""
    try:
        connected = options.connect()
    except ValueError as error:
        print(f"ponder models: {error}", file=sys.stderr)
        return 2
    with connected as client:
        try:
            models = client.models()
        except PonderAPIError as error:
            print(f"ponder models: {explained(error, client)}", file=sys.stderr)
            return 1
    if options.json_output:
        print(models.model_dump_json(indent=2))
    else:
        Console(highlight=False, markup=False, emoji=False).print(_table(models.data))
    return 0


def _table(cards: list[ModelCard]) -> Table:
    """A table with a column per model: most servers have one, with too many facts for a line."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim")
    facts = [list(_facts(card)) for card in cards]
    for row in zip(*facts, strict=True):
        table.add_row(row[0][0], *(Text(value) for _, value in row))
    return table


def _facts(card: ModelCard) -> Iterator[tuple[str, str]]:
    can = card.ponder
    yield "model", card.id
    yield "context", str(card.max_model_len)
    yield "thinks", _thinks(can)
    yield "default budget", _tokens(can.default_budget) if can.thinks else "-"
    yield "budget ceiling", "none" if can.budget_ceiling is None else str(can.budget_ceiling)
    yield "trained budgets", ", ".join(map(str, can.trained_budgets)) or "none"
    yield "hints", "yes" if can.budget_hint or can.budget_argument else "no"
    yield "closes loops", "yes" if can.loop_exit else "no"
    yield "early exits", ", ".join(can.early_exits) or "none"
    yield "strategies", ", ".join(can.strategies) or "none"
    auto = "none" if can.auto_budget is None else _tokens(can.auto_budget)
    yield "auto budget", f"{auto} (tasks: {', '.join(can.tasks)})" if can.tasks else auto
    yield "efforts", ", ".join(f"{name} {_tokens(n)}" for name, n in can.efforts.items())


def _thinks(can: Capabilities) -> str:
    if can.thinks:
        return f"yes, as {can.format}"
    return "no" if can.unread is None else f"not understood ({can.unread} in its chat template)"


def _tokens(budget: int) -> str:
    return "no limit" if budget == UNLIMITED else str(budget)
