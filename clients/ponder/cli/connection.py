"""Which server a command asks, and what is said when it cannot."""

from __future__ import annotations

from pydantic import BaseModel, Field, SecretStr, field_validator

from ponder import environment
from ponder.client import Ponder, PonderAPIError
from ponder.client.address import server_root


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
        """Raises `ValueError` for an address or a key that can be none."""
        key = self.api_key.get_secret_value() if self.api_key else None
        return Ponder(self.url, key, max_retries=0)  # whoever waits wants to know


def explained(error: PonderAPIError, client: Ponder) -> str:
    """The server's message, or where there is no server the way to one."""
    if error.code == "unreachable":
        return (
            f"no server answers at {client.base_url}: start one with `ponder serve`, "
            f"or name another with --url"
        )
    return error.message
