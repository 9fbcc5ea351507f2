"""Anthropic's client for Python."""

from anthropic import Anthropic
from said import KEY, MESSAGES, MODEL, ROOT, TOOL, run

client = Anthropic(base_url=ROOT, api_key=KEY, max_retries=0)
THINKING = {"type": "enabled", "budget_tokens": 64}
ASKED = {"model": MODEL, "messages": MESSAGES, "max_tokens": 400}


def told(message):
    return {
        "content": "".join(block.text for block in message.content if block.type == "text"),
        "types": [block.type for block in message.content],
        "stop": message.stop_reason,
    }


def messages():
    return told(client.messages.create(**ASKED, thinking=THINKING))


def stream():
    with client.messages.stream(**ASKED, thinking=THINKING) as events:
        text = "".join(events.text_stream)
        final = events.get_final_message()
    return {**told(final), "deltas": text}


def second_turn():
    first = client.messages.create(**ASKED, thinking=THINKING)
    turns = [*MESSAGES, {"role": "assistant", "content": first.content}, *MESSAGES]
    return told(client.messages.create(**{**ASKED, "messages": turns}, thinking=THINKING))


def tools():
    tool = {
        "name": "calculate",
        "description": TOOL["function"]["description"],
        "input_schema": TOOL["function"]["parameters"],
    }
    asked = {**ASKED, "tools": [tool]}
    reply = client.messages.create(**asked, tool_choice={"type": "any"})
    (use,) = [block for block in reply.content if block.type == "tool_use"]
    result = {"type": "tool_result", "tool_use_id": use.id, "content": "33"}
    turns = [
        *MESSAGES,
        {"role": "assistant", "content": reply.content},
        {"role": "user", "content": [result]},
    ]
    last = client.messages.create(**{**asked, "messages": turns})
    return {"name": use.name, "stop": reply.stop_reason, "content": told(last)["content"]}


def count_tokens():
    return {"tokens": client.messages.count_tokens(model=MODEL, messages=MESSAGES).input_tokens}


run(globals())
