"""Everything an operator can set, as flags and as `PONDER_*` environment variables."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, CliPositionalArg, NoDecode, SettingsConfigDict

BUNDLED_MODEL = str(Path(__file__).parents[1] / "models" / "tiny")


class Settings(BaseSettings):
    """Serve a model with thinking budgets on an OpenAI-compatible endpoint.

    vLLM's own options pass through unchanged after `--`.
    """

    model_config = SettingsConfigDict(env_prefix="PONDER_", extra="forbid")

    model: CliPositionalArg[str] = Field(
        BUNDLED_MODEL, description="Hugging Face model directory or name (default: the bundled one)"
    )
    host: str = Field("127.0.0.1", description="address to listen on")
    port: Annotated[int, Field(ge=0, le=65535)] = Field(
        8000, description="port to listen on; 0 picks a free one"
    )
    served_model_name: str | None = Field(
        None, description="name clients ask for (default: the model's own)"
    )
    default_budget: Annotated[int, Field(ge=-1)] = Field(
        -1, description="thinking tokens when a request does not say; -1 is no limit"
    )
    budget_ceiling: Annotated[int, Field(ge=0)] | None = Field(
        None, description="most thinking tokens any request gets"
    )
    hint: bool = Field(
        True,
        description="tell a model trained on budgets of the one it has, where a request "
        "does not say",
    )
    allowed_close_text: list[str] = Field(
        [], description="a close text requests may ask for; repeat for several"
    )
    api_key: Annotated[list[SecretStr], NoDecode] = Field(
        [], description="accept requests with this bearer key only; repeat for several"
    )
    max_running: Annotated[int, Field(ge=1)] = Field(
        256, description="choices generated at once; above it requests get 503 with Retry-After"
    )
    max_body_bytes: Annotated[int, Field(ge=1024)] = Field(
        4 << 20, description="largest request body, in bytes"
    )
    request_timeout: Annotated[float, Field(gt=0)] = Field(
        600.0, description="seconds a request may take before it ends with an error"
    )
    drain_timeout: Annotated[int, Field(ge=0)] = Field(
        30, description="seconds that running requests get to finish after SIGTERM"
    )
    cors_origin: list[str] = Field(
        [], description="origin that browsers may call from; repeat for several (default: none)"
    )
    engine_options: list[str] = Field([], description="vLLM's own options, as given after `--`")

    @field_validator("api_key", mode="before")
    @classmethod
    def _comma_separated(cls, value: object) -> object:
        """`PONDER_API_KEY=one,two`"""
        return value.split(",") if isinstance(value, str) else value
