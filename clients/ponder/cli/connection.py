"""The connection of a command to its server, and the message when there is none."""

from __future__ import annotations

from pydantic import BaseModel, Field, SecretStr, field_validator

from ponder import environment
from ponder.client import Ponder, PonderAPIError
from ponder.client.address import server_root
from ponder.environment.urls import without_password


class ServerOptions(BaseModel):
    """The options of every command that asks a server."""

    url: str | None = Field(
        None,
        description=f"where the server listens (default: {environment.named(environment.URL)}, "
        f"else {environment.DEFAULT_URL})",
    )
    api_key: SecretStr | None = Field(
        None,
        description=f"key the server asks for (default: {environment.named(environment.API_KEY)})",
    )

    @field_validator("url")
    @classmethod
    def _is_a_server(cls, url: str | None) -> str | None:
        return None if url is None else server_root(url)

    def connect(self) -> Ponder:
        """A client of the server. Raises `ValueError` for a malformed address or key."""
        key = self.api_key.get_secret_value() if self.api_key else None
        return Ponder(self.url, key, max_retries=0)  # a user who waits wants to know at once


def explained(error: PonderAPIError, client: Ponder) -> str:
    """The server's message or, if no server answers, how to reach one."""
    if error.code == "unreachable":
        url = without_password(client.base_url)
        return (
            f"no server answers at {url}: start one with `ponder serve`, or name another with --url"
        )
    return error.message
