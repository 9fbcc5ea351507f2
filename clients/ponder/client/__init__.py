"""A typed client of a Ponder server: `Ponder` and `AsyncPonder`, over httpx."""

from ponder.client.client import AsyncPonder, Ponder
from ponder.client.errors import PonderAPIError
from ponder.client.request import ChatOptions
from ponder.client.stream import AsyncChatStream, ChatStream

__all__ = [
    "AsyncChatStream",
    "AsyncPonder",
    "ChatOptions",
    "ChatStream",
    "Ponder",
    "PonderAPIError",
]
