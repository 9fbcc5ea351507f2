"""Reads the environment: the server's address, key and model, and the folder for state.

Standard library only: server, client, command line and evaluation share this module.
"""

from __future__ import annotations

import os
from pathlib import Path

URL = ("PONDER_URL", "OPENAI_BASE_URL")
API_KEY = ("PONDER_API_KEY", "OPENAI_API_KEY")
MODEL = ("PONDER_MODEL",)

DEFAULT_URL = "http://127.0.0.1:8000"


def server_url() -> str | None:
    return _first(URL)


def api_key() -> str | None:
    """The key; the first one if the variable lists several, as a server's may."""
    return (_first(API_KEY) or "").split(",")[0].strip() or None


def model() -> str | None:
    return _first(MODEL)


def named(variables: tuple[str, ...]) -> str:
    """For a help text: `PONDER_URL or OPENAI_BASE_URL in the environment`."""
    return f"{' or '.join(variables)} in the environment"


def _first(variables: tuple[str, ...]) -> str | None:
    """The first variable that is not empty: `.env` files have empty ones."""
    values = (os.environ.get(name, "").strip() for name in variables)
    return next((value for value in values if value), None)


def state_home() -> Path:
    """The folder for Ponder's state, by the XDG Base Directory Specification.

    A user without a home has the root for it, as in containers.
    """
    named = Path(os.environ.get("XDG_STATE_HOME", ""))
    if named.is_absolute():
        return named / "ponder"
    try:
        home = Path.home()
    except RuntimeError:
        home = Path("/")
    return home / ".local/state/ponder"
