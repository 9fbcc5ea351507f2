"""What the server says of itself: `GET /`, `/version` and `/load`."""

from __future__ import annotations

from pydantic import BaseModel

from ponder.protocol.response import Capabilities


class About(BaseModel):
    """What is served here, and how to ask for it.

    `about` and `examples`, which are questions, are there for the bundled model alone.
    `max_model_len` is the context in tokens. `causes` says in words how a thought ended, by
    `end_cause`. `links` are paths on this server.
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
    """Ponder's."""

    version: str


class Load(BaseModel):
    """Requests that are read or answered."""

    server_load: int
