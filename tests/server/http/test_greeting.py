"""What a server says at its start of how its model thinks, and `/v1/models` after it."""

from __future__ import annotations

import logging
import socket

import pytest

from ponder.server.process import greet
from server.checkpoint.test_traits import UNLESS, template
from server.http.conftest import Serve

QWEN = template(
    UNLESS, "<think>\n{% else %}<think></think>{% endif %}", before="{# <|im_start|> #}"
)


@pytest.mark.parametrize(
    ("text", "said", "card"),
    [
        (template("<think>\n"), "think tags", (True, "think tags", None)),
        (QWEN, "Qwen3", (True, "Qwen3", None)),
        (template("[bot]"), "does not think", (False, None, None)),
        (
            template("<thought>"),
            "thinks, but not in a way that Ponder can read: docs/models.md",
            (False, None, "<thought"),
        ),
    ],
    ids=["tags", "family", "does not think", "unread"],
)
def test_the_greeting_and_the_card_tell_how_the_model_thinks(
    serve: Serve,
    caplog: pytest.LogCaptureFixture,
    text: str,
    said: str,
    card: tuple[bool, str | None, str | None],
) -> None:
    running = serve(template=text, bare=True)
    caplog.set_level(logging.INFO, logger="ponder")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        greet(running.service, listener)
    (record,) = [record for record in caplog.records if "serving" in record.getMessage()]
    assert f"serving tiny ({said}) at http://127.0.0.1:" in record.getMessage()
    thinks, _, _ = card
    assert ("thinking_token_budget" in record.__dict__["more"]) == thinks
    shown = running.client().models.list().data[0].ponder  # type: ignore[attr-defined]
    assert (shown["thinks"], shown["format"], shown["unread"]) == card
