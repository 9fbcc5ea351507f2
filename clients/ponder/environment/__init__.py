"""What the environment says: which server to ask, in the same words for all, and where state lies.

Standard library only, and nobody's room: server, client, command line and evaluation read it.
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
    """The first key, where the server's own variable lists several."""
    return (_first(API_KEY) or "").split(",")[0].strip() or None


def model() -> str | None:
    return _first(MODEL)


def named(variables: tuple[str, ...]) -> str:
    """For a help text: `PONDER_URL or OPENAI_BASE_URL in the environment`."""
    return f"{' or '.join(variables)} in the environment"


def _first(variables: tuple[str, ...]) -> str | None:
    """An empty variable is not set: `.env` files have such lines."""
    values = (os.environ.get(name, "").strip() for name in variables)
    return next((value for value in values if value), None)


def state_home() -> Path:
    """Where the XDG Base Directory Specification wants Ponder's state to be."""
    home = Path(os.environ.get("XDG_STATE_HOME", ""))
    return (home if home.is_absolute() else Path("~/.local/state").expanduser()) / "ponder"
