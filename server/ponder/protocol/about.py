"""The server's description of itself: `GET /`, `/version` and `/load`."""

from __future__ import annotations

from pydantic import BaseModel

from ponder.protocol.response import Capabilities


class About(BaseModel):
    """The served model, and how to use it.

    Only the bundled model has `about` and `examples`, which are questions. `max_model_len` is the
    context in tokens. `causes` explains each `end_cause` in words. `links` are paths on this
    server.
    """

    name: str
    version: str
    model: str
    about: str | None
    examples: list[str]
    max_model_len: int
    capabilities: Capabilities
    causes: dict[str, str]
    key_needed: bool
    links: dict[str, str]


class Version(BaseModel):
    """Ponder's version."""

    version: str


class Load(BaseModel):
    """The number of requests that the server reads or answers at the moment."""

    server_load: int
