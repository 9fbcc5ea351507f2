"""What names a conversation, and in which order."""

from __future__ import annotations

from typing import Any

import pytest

from ponder.protocol.dialects.chat import ChatCompletionRequest


def request(**fields: Any) -> ChatCompletionRequest:
    messages = [{"role": "user", "content": "Hello"}]
    return ChatCompletionRequest.model_validate({"messages": messages, **fields})


@pytest.mark.parametrize(
    ("header", "fields", "name"),
    [
        ("h", {"user": "u", "ponder": {"scope": "s"}}, "header:h"),
        (None, {"user": "u", "ponder": {"scope": "s"}}, "scope:s"),
        ("", {"user": "u", "ponder": {}}, "user:u"),
        ("", {"user": "", "ponder": {"scope": "s"}}, "scope:s"),
        (None, {}, None),
    ],
)
def test_the_first_that_is_said_names_it(
    header: str | None, fields: dict[str, Any], name: str | None
) -> None:
    headers = {} if header is None else {"x-ponder-conversation": header}
    assert request(**fields).neutral(headers).conversation == name
