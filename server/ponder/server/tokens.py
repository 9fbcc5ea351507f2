"""Text into tokens and back, for clients that count before they ask."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import TypeVar

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import BaseModel

from ponder.engine.tokenizer import GoesOn, TokenizerError
from ponder.protocol.body import read_body
from ponder.protocol.chat import ChatRequest, Turns
from ponder.protocol.dialect import Counter
from ponder.protocol.dialects import dialect_at
from ponder.protocol.errors import invalid_request
from ponder.protocol.functions import read_tools
from ponder.protocol.messages import turns
from ponder.protocol.tokens import Detokenized, DetokenizeRequest, Tokenized, TokenizeRequest
from ponder.server.answering import Held, named, read_and, takes_long
from ponder.server.arguments import settable
from ponder.server.logs import request_id
from ponder.server.model import ServedModel
from ponder.server.schema import body_of
from ponder.server.service import Service
from ponder.server.streaming import ClientGone
from ponder.thought.budget import Ask, Limits
from ponder.thought.errors import ContextLengthExceeded

Asked = TypeVar("Asked")

router = APIRouter(tags=["tokens"])


@router.post(
    "/tokenize",
    response_model=Tokenized,
    response_description="The tokens and their number",
    openapi_extra=body_of(TokenizeRequest),
)
async def tokenize(request: Request, place: Held) -> Response:
    """The tokens of a text, or of the prompt that a chat with these messages makes.

    As on vLLM's server, a prompt that is longer than the context is counted, too.
    """
    return await _answer(request, place, partial(read_body, TokenizeRequest), _tokenized)


@router.post(
    "/detokenize",
    response_model=Detokenized,
    response_description="The text",
    openapi_extra=body_of(DetokenizeRequest),
)
async def detokenize(request: Request, place: Held) -> Response:
    """The text of tokens."""
    return await _answer(request, place, partial(read_body, DetokenizeRequest), _detokenized)


def counting(counter: Counter) -> Callable[..., Awaitable[Response]]:
    """The route that counts the prompts of a dialect's requests."""

    async def count(request: Request, place: Held) -> Response:
        def reading(body: bytearray) -> ChatRequest:
            return counter.read(body, request.headers)

        def counted(service: Service, asked: ChatRequest) -> BaseModel:
            return counter.counted(service.planner.count(counter, asked, request.headers))

        response = await _answer(request, place, reading, counted, slow=takes_long)
        response.headers.update(named(dialect_at(request.scope["path"]), request_id.get() or ""))
        return response

    return count


async def _answer(
    request: Request,
    place: Held,
    read: Callable[[bytearray], Asked],
    work: Callable[[Service, Asked], BaseModel],
    *,
    slow: Callable[[Asked], bool] = lambda _: False,
) -> Response:
    service: Service = request.app.state.service
    try:
        async with place.time():
            said = await read_and(request, read, partial(work, service), slow=slow)
    except ClientGone:
        service.metrics.left()
        return Response(status_code=499)
    return Response(said.model_dump_json(), media_type="application/json")


def _tokenized(service: Service, asked: TokenizeRequest) -> Tokenized:
    if asked.model is not None:
        service.model.check_served(asked.model)
    ids = tokens_of(asked, service.model, service.planner.limits)
    names = service.model.tokenizer.names(ids) if asked.return_token_strs else None
    return Tokenized(
        count=len(ids),
        max_model_len=service.planner.limits.max_model_len,
        tokens=ids,
        token_strs=names,
    )


def _detokenized(service: Service, asked: DetokenizeRequest) -> Detokenized:
    if asked.model is not None:
        service.model.check_served(asked.model)
    return Detokenized(prompt=text_of(asked.tokens, service.model))


def tokens_of(asked: TokenizeRequest, model: ServedModel, limits: Limits) -> list[int]:
    """The tokens of a text, or of messages. Raises `ApiError`.

    Messages that the assistant continues are tokenised as a chat, whose thought needs a plan; they
    are counted even where they leave no room for one.
    """
    special = asked.add_special_tokens
    if asked.prompt is not None:
        return model.tokenizer.encode(asked.prompt, special_tokens=special is not False)
    said = turns(asked.messages or ())
    tools = read_tools(asked.tools, "none", None)
    arguments = dict(asked.chat_template_kwargs or {})
    thinks = arguments.pop("enable_thinking", None)  # it is a budget, as in a chat
    if asked.add_generation_prompt and not special:
        ask = Ask(budget=0 if thinks is False else None, thinks=bool(thinks))
        chat = ChatRequest(id="", prompts=[Turns(said, arguments)], ask=ask, tools=tools)
        with suppress(ContextLengthExceeded):
            return model.prompts(chat, limits)[0].token_ids
    goes_on: GoesOn = "last message" if asked.continue_final_message else "nobody"
    try:
        return model.checkpoint.encode(
            said,
            {**settable(model.checkpoint, arguments), **model.told(tools)},
            goes_on="assistant" if asked.add_generation_prompt else goes_on,
            special_tokens=bool(special),
        )
    except TokenizerError as error:
        raise invalid_request(str(error), "prompt") from error


def text_of(token_ids: list[int], model: ServedModel) -> str:
    """The text of tokens. Raises `ApiError` for a token that the model does not have."""
    model.check_token_ids("tokens", token_ids)
    return model.tokenizer.spell(token_ids)
