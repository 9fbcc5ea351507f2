"""Everything an operator can set, as flags and as `PONDER_*` environment variables."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, SecretStr, StringConstraints, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    CliPositionalArg,
    EnvSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from ponder import environment
from ponder.experiment.ledger import POSTGRES
from ponder.protocol.fields import BUDGET
from ponder.server.pools.protocol import Kind, PoolSize, read_pools

PREFIX = "PONDER_"
_REDIS = re.compile(r"rediss?://[^/]|unix:///")
BUNDLED_MODEL = str(Path(__file__).parents[1] / "models" / "tiny")
BUNDLED_EXAMPLES = (
    "2+2",
    "What is 17 + 25 - 9?",
    "Solve 3 * x + 14 = 35 for x.",
    "Which is the largest of 3, 14, 9?",
    "What is the integer square root of 150?",
)
BUNDLED_ABOUT = "A reasoner for small number problems."
BUNDLED_KNOWS = "{} Ask it {} or {}.".format(
    BUNDLED_ABOUT,
    ", ".join(f'"{question}"' for question in BUNDLED_EXAMPLES[:-1]),
    f'"{BUNDLED_EXAMPLES[-1]}"',
)


class Settings(BaseSettings):
    """Serve a model with thinking budgets on an OpenAI-compatible endpoint.

    The engine's own options follow `--`: vLLM's unchanged, or the address of inference servers
    (`--engine http -- http://127.0.0.1:8001`).
    """

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="forbid")

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
    default_budget: Annotated[Annotated[int, Field(ge=-1)] | Literal["auto"], BUDGET] = Field(
        -1,
        description="budget, in thinking tokens, of a request that sets none; -1 is no limit, auto "
        "takes it from the model's calibrated curve for the task",
    )
    budget_ceiling: Annotated[int, Field(ge=0)] | None = Field(
        None, description="most thinking tokens any request gets"
    )
    pool: list[str] = Field(
        [],
        description="thinking tokens that the requests of a tenant (an API key) or a conversation "
        "share, as tenant=200000/1h: the tokens of a full pool, and the time in which an empty one "
        "fills; budgets shrink with what is left in it; repeat for both",
    )
    on_exhausted: Literal["answer", "error"] = Field(
        "answer",
        description="what a request for a thought gets from an empty pool: an answer without one, "
        "or 429 with Retry-After",
    )
    shed_load: Literal["off", "unasked", "all"] = Field(
        "off",
        description="shrink budgets in steps to a quarter while the server has more to do than its "
        "engine can: those that requests leave open, or all, with the requested ones last",
    )
    hint: bool = Field(
        True,
        description="tell its budget to a model that was trained on budgets, or whose chat "
        "template tells it, unless a request says otherwise",
    )
    loop_exit: bool = Field(
        True,
        description="close a thought that repeats itself, unless a request says otherwise: at "
        "least 3 copies of up to 128 tokens, from 256 tokens of thought on",
    )
    default_deadline_ms: Annotated[int, Field(ge=1)] | None = Field(
        None,
        description="milliseconds until an answer is due, for a request that sets no deadline, "
        "held out or not; the server closes its thought in time (default: no deadline)",
    )
    early_exit_shadow: Annotated[float, Field(ge=0, le=1)] = Field(
        0.05,
        description="share of the conversations with early exits whose thoughts run to their end "
        "anyway, to count how often an exit changed the answer",
    )
    holdout: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0,
        description="share of conversations served without the saving policy (the default budget, "
        "auto, the hints and the loop exit), for comparison",
    )
    holdout_key: Annotated[SecretStr, Field(min_length=16)] | None = Field(
        None,
        description="secret of at least 16 characters that draws the held-out conversations; the "
        "same on every replica",
    )
    state: str = Field(
        default_factory=lambda: str(environment.state_home() / "state.sqlite3"),
        description="where savings are kept: a SQLite file, on a local disk; or, for servers on "
        "several machines, postgresql://user@host/database; :memory: keeps them no longer than the "
        "process (default: ~/.local/state/ponder/state.sqlite3)",
    )
    redis: SecretStr | None = Field(
        None,
        description="Redis in which servers behind one address share pools and running replies, as "
        "redis://host:6379/0; while it is away each goes on alone (default: servers share nothing)",
    )
    verifier: str | None = Field(
        None,
        description="package.module:function of (messages, answer) that scores answers from 0 to 1 "
        "or gives None; runs in a process of its own",
    )
    verifier_env: list[str] = Field(
        [],
        description="environment variable that the verifier sees, which sees no others; repeat "
        "for several; not the server's own (PONDER_*)",
    )
    verifier_memory: Annotated[int, Field(ge=64)] = Field(
        4096, description="address space that the verifier's process may use, in MB"
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
        30,
        description="seconds that running requests get to finish after SIGTERM, SIGHUP or Ctrl-C",
    )
    stall_timeout: Annotated[float, Field(gt=0)] = Field(
        120.0,
        description="seconds without a token, while choices run, after which /readyz says that the "
        "engine is stalled; longer than it takes to read the longest prompt",
    )
    log_format: Literal["text", "json"] = Field(
        "text",
        description="format of the log, a line for each request without prompts and answers: text "
        "for people, or JSON objects",
    )
    traces: bool = Field(
        False, description="send OpenTelemetry traces; the OTEL_* variables say where to"
    )
    allowed_host: list[Annotated[str, StringConstraints(strip_whitespace=True)]] = Field(
        [],
        description="host name that requests may use, beside addresses and local names; "
        "*.example.com is all below it, * any; repeat for several (default: any; only local names "
        "if --host is a loopback address and there is no --api-key)",
    )
    cors_origin: list[Annotated[str, StringConstraints(strip_whitespace=True)]] = Field(
        [], description="origin that browsers may call from; repeat for several (default: none)"
    )
    page: bool = Field(
        True, description="show browsers a page at / to try the model (programs get JSON there)"
    )
    tool_parser: str | None = Field(
        None,
        description="the syntax in which the model writes calls of tools, by its name in vLLM's "
        "--tool-call-parser (default: recognised from the chat template)",
    )
    engine: str = Field(
        "vllm",
        description="source of the tokens: vllm, in this process; http, an inference server or a "
        "fleet, whose address follows `--`; scripted, which says the texts after `--` and needs "
        "no weights, for trying clients; or a module of your own",
    )
    engine_options: list[str] = Field(
        [], description="the engine's own options, as given after `--`"
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Ignore variables without a value, but not an empty API key, which is an error."""
        assert isinstance(env_settings, EnvSettingsSource)
        key = f"{PREFIX}api_key".lower()
        env_settings.env_vars = {
            name: value for name, value in env_settings.env_vars.items() if value or name == key
        }
        return init_settings, env_settings

    @field_validator("api_key", mode="before")
    @classmethod
    def _comma_separated(cls, value: object) -> object:
        """`PONDER_API_KEY=one,two`"""
        return value.split(",") if isinstance(value, str) else value

    @field_validator("api_key")
    @classmethod
    def _no_key_is_empty(cls, keys: list[SecretStr]) -> list[SecretStr]:
        """Reject an empty key, which `Bearer` with nothing after it would match."""
        stripped = [key.get_secret_value().strip() for key in keys]
        if not all(stripped):
            raise ValueError(
                "an empty key would let everybody in: take it out of the list, or leave the "
                "setting out altogether to serve without keys"
            )
        return [SecretStr(key) for key in stripped]

    @field_validator("state")
    @classmethod
    def _state_is_kept(cls, given: str) -> str:
        scheme, found, _ = given.partition("://")
        if found and not given.startswith(POSTGRES):
            remedy = "give it to --redis" if scheme.startswith("redis") else "see --help"
            raise ValueError(
                f"savings are kept in a file or in postgresql://, not in {scheme}://: {remedy}"
            )
        return given

    @field_validator("redis")
    @classmethod
    def _redis_is_an_address(cls, given: SecretStr | None) -> SecretStr | None:
        if given is not None and not _REDIS.match(given.get_secret_value()):
            raise ValueError("write redis://host:6379/0, rediss:// with TLS, or unix:///its/socket")
        return given

    @field_validator("pool")
    @classmethod
    def _pools_have_sizes(cls, given: list[str]) -> list[str]:
        read_pools(given)
        return given

    @property
    def pools(self) -> dict[Kind, PoolSize]:
        """The size of each kind of pool that is set."""
        return read_pools(self.pool)

    @model_validator(mode="after")
    def _exhausts_a_pool(self) -> Settings:
        if not self.pool and self.on_exhausted != "answer":
            raise ValueError("--on-exhausted needs a pool: add --pool, or leave it out")
        return self

    @model_validator(mode="after")
    def _holdout_has_its_key(self) -> Settings:
        if self.holdout and self.holdout_key is None:
            raise ValueError(
                "--holdout needs a secret to draw conversations with: set PONDER_HOLDOUT_KEY to "
                "the same 16 or more characters on every replica, as from `openssl rand -hex 16`"
            )
        return self


def misspelt(variables: Mapping[str, str]) -> Iterator[str]:
    """A warning for each variable that sets nothing but nearly has a setting's name."""
    known = {f"{PREFIX}{name}".upper() for name in Settings.model_fields}
    for name in variables:
        if name.startswith(PREFIX) and name not in known:
            close = difflib.get_close_matches(name, known, n=1, cutoff=0.85)
            if close:
                yield f"{name} sets nothing: did you mean {close[0]}?"
