"""Text into tokens and back, for clients that count before they ask."""

from __future__ import annotations

from collections.abc import Callable

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import BaseModel

from ponder.protocol.body import read_body
from ponder.protocol.tokens import Detokenized, DetokenizeRequest, Tokenized, TokenizeRequest
from ponder.server.answering import Held, read_and
from ponder.server.schema import body_of
from ponder.server.service import Service
from ponder.server.streaming import ClientGone

router = APIRouter(tags=["tokens"])


@router.post("/tokenize", response_model=Tokenized, openapi_extra=body_of(TokenizeRequest))
async def tokenize(request: Request, place: Held) -> Response:
    """The tokens of a text, or of the prompt that a chat of these messages is answered on.

    As on vLLM's server, what is longer than the context is counted, too; a text has a length of
    its own.
    """
    return await _answer(request, place, _tokenized)


@router.post("/detokenize", response_model=Detokenized, openapi_extra=body_of(DetokenizeRequest))
async def detokenize(request: Request, place: Held) -> Response:
    """The text of tokens."""
    return await _answer(request, place, _detokenized)


async def _answer(
    request: Request, place: Held, work: Callable[[Service, bytearray], BaseModel]
) -> Response:
    service: Service = request.app.state.service
    try:
        async with place.time():
            said = await read_and(request, lambda body: work(service, body))
    except ClientGone:
        service.metrics.left()
        return Response(status_code=499)
    return Response(said.model_dump_json(), media_type="application/json")


def _tokenized(service: Service, body: bytearray) -> Tokenized:
    asked = read_body(TokenizeRequest, body)
    if asked.model is not None:
        service.check_served(asked.model)
    ids = service.model.tokens(asked, service.limits)
    names = service.model.tokenizer.names(ids) if asked.return_token_strs else None
    return Tokenized(
        count=len(ids), max_model_len=service.limits.max_model_len, tokens=ids, token_strs=names
    )


def _detokenized(service: Service, body: bytearray) -> Detokenized:
    asked = read_body(DetokenizeRequest, body)
    if asked.model is not None:
        service.check_served(asked.model)
    return Detokenized(prompt=service.model.text(asked.tokens))
