"""The proxy's configuration, by nginx's own reading of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ponder.server.settings import Settings

from .conftest import DEPLOY, run

CONFIGURATION = DEPLOY / "nginx" / "ponder.conf"


def test_the_configuration_is_valid(
    nginx: Callable[[Path, str], list[str | Path]], tmp_path: Path
) -> None:
    run(*nginx(tmp_path, CONFIGURATION.read_text()), "-t")


def test_its_limits_are_the_servers_defaults() -> None:
    text = CONFIGURATION.read_text()
    body = Settings.model_fields["max_body_bytes"].default
    assert f"client_max_body_size {body >> 20}m;" in text
    timeout = Settings.model_fields["request_timeout"].default
    assert f"proxy_read_timeout {timeout:.0f}s;" in text
