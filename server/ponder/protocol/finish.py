"""`POST /v1/ponder/{id}/finish`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, Field

from ponder.protocol.fields import Strict, Whole

Choice = Annotated[int, Field(ge=0, lt=2**31)]


class FinishRequest(Strict):
    """Finish the thought of one `choice`, or without it of all choices that think."""

    choice: Annotated[Choice, Field(strict=True), Whole] | None = None


class FinishQuery(Strict):
    """The same request in a URL, where numbers are text."""

    choice: Choice | None = None


class Finish(BaseModel):
    """The `choices` whose thoughts are closed, or will be when they open."""

    object: Literal["ponder.finish"] = "ponder.finish"
    id: str
    choices: list[int]
