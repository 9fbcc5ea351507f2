"""`POST /tokenize` and `/detokenize`, as on vLLM's server."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, Field, StrictBool, model_validator

from ponder.protocol.fields import (
    MOST_METADATA,
    Name,
    Strict,
    TokenId,
    at_most,
)
from ponder.protocol.functions import Tools
from ponder.protocol.messages import Conversation

MOST_TEXT = 1 << 20
"""The most characters of a text: encoding takes some 300 bytes of memory for each."""


class TokenizeRequest(Strict):
    """A prompt as it is, or messages that the chat template turns into a prompt.

    `add_special_tokens` adds the tokenizer's own, such as BOS, around the text: by default around
    a prompt, but not around messages, whose template writes them.
    """

    model: Name | None = None
    prompt: Annotated[str, Field(max_length=MOST_TEXT)] | None = None
    messages: Conversation | None = None
    add_special_tokens: StrictBool | None = None
    return_token_strs: StrictBool = False
    add_generation_prompt: StrictBool = True
    continue_final_message: StrictBool = False
    chat_template_kwargs: Annotated[dict[str, Any], at_most(MOST_METADATA)] | None = None
    tools: Tools | None = None

    @model_validator(mode="after")
    def _consistent(self) -> TokenizeRequest:
        if (self.prompt is None) == (self.messages is None):
            raise ValueError("send either prompt or messages")
        if self.continue_final_message and self.add_generation_prompt:
            raise ValueError("continue_final_message needs add_generation_prompt: false")
        if sum(len(message.text) for message in self.messages or ()) > MOST_TEXT:
            raise ValueError(f"messages hold more than {MOST_TEXT} characters: send them in parts")
        return self


class Tokenized(BaseModel):
    """`token_strs` are the tokens as the vocabulary spells them, if asked for."""

    count: int
    max_model_len: int
    tokens: list[int]
    token_strs: list[str] | None = None


class DetokenizeRequest(Strict):
    model: Name | None = None
    tokens: list[TokenId]


class Detokenized(BaseModel):
    """The text of the tokens; a special token's text is its name."""

    prompt: str
