"""The proxy's configuration, by nginx's own reading of it."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from ponder.server.door import welcome
from ponder.server.settings import Settings

from .conftest import DEPLOY, run

CONFIGURATION = DEPLOY / "nginx" / "ponder.conf"


def test_the_configuration_is_valid(
    nginx: Callable[[Path, str], list[str | Path]], tmp_path: Path
) -> None:
    run(*nginx(tmp_path, CONFIGURATION.read_text()), "-t")


def test_its_limits_follow_the_servers_defaults() -> None:
    text = CONFIGURATION.read_text()
    body = Settings.model_fields["max_body_bytes"].default
    assert f"client_max_body_size {body >> 20}m;" in text
    timeout = Settings.model_fields["request_timeout"].default
    found = re.search(r"proxy_read_timeout (\d+)s;", text)
    assert found and int(found[1]) > timeout


def test_a_request_that_has_begun_is_not_run_again() -> None:
    """A server that does not answer in time may be at work on it."""
    found = re.search(r"^ *proxy_next_upstream (.+);$", CONFIGURATION.read_text(), re.MULTILINE)
    assert found and set(found[1].split()) == {"error", "http_503", "non_idempotent"}


def test_servers_on_loopback_answer_to_the_name_it_asks_for() -> None:
    found = re.search(r"^ *proxy_set_header Host (.+);$", CONFIGURATION.read_text(), re.MULTILINE)
    assert found and welcome(found[1], ())
