"""OpenAI's client for Python."""

from openai import OpenAI, pydantic_function_tool
from pydantic import BaseModel, Field
from said import BUDGET, KEY, MESSAGES, MODEL, QUESTION, TOOL, URL, run

client = OpenAI(base_url=URL, api_key=KEY, max_retries=0)
ASKED = {"model": MODEL, "messages": MESSAGES, "temperature": 0}


class Answer(BaseModel):
    answer: int = Field(ge=0, le=999)


class Calculate(BaseModel):
    expression: str


def told(reply):
    choice = reply.choices[0]
    return {
        "content": choice.message.content,
        "reasoning": getattr(choice.message, "reasoning", None),
        "reasoning_tokens": reply.usage.completion_tokens_details.reasoning_tokens,
        "cause": choice.ponder["end_cause"],
    }


def chat():
    return told(client.chat.completions.create(**ASKED, extra_body=BUDGET))


def cut():
    return told(client.chat.completions.create(**ASKED, extra_body={"thinking_token_budget": 8}))


def effort():
    return told(client.chat.completions.create(**ASKED, reasoning_effort="none"))


def stream():
    told = {"content": "", "reasoning": ""}
    chunks = client.chat.completions.create(
        **ASKED, stream=True, stream_options={"include_usage": True}, extra_body=BUDGET
    )
    for chunk in chunks:
        for choice in chunk.choices:
            told["content"] += choice.delta.content or ""
            told["reasoning"] += getattr(choice.delta, "reasoning", None) or ""
            if choice.finish_reason:
                told["cause"] = choice.ponder["end_cause"]
        if chunk.usage:
            told["reasoning_tokens"] = chunk.usage.completion_tokens_details.reasoning_tokens
    return told


def stream_helper():
    with client.chat.completions.stream(**ASKED, extra_body=BUDGET) as events:
        deltas = [event.delta for event in events if event.type == "content.delta"]
        final = events.get_final_completion()
    return {"content": final.choices[0].message.content, "deltas": "".join(deltas)}


def second_turn():
    messages = list(MESSAGES)
    reply = client.chat.completions.create(model=MODEL, messages=messages, extra_body=BUDGET)
    messages += [reply.choices[0].message, {"role": "user", "content": QUESTION}]
    return told(
        client.chat.completions.create(
            model=MODEL, messages=messages, temperature=0, extra_body=BUDGET
        )
    )


def parse():
    reply = client.chat.completions.parse(**ASKED, response_format=Answer, extra_body=BUDGET)
    return {**told(reply), "parsed": type(reply.choices[0].message.parsed).__name__}


def parse_stream():
    with client.chat.completions.stream(
        **ASKED, response_format=Answer, extra_body=BUDGET
    ) as events:
        for _ in events:
            pass
        final = events.get_final_completion()
    return {"parsed": type(final.choices[0].message.parsed).__name__}


def tools():
    messages = [{"role": "user", "content": "Calculate 17 + 25 - 9."}]
    asked = {"model": MODEL, "temperature": 0, "tools": [TOOL], "extra_body": BUDGET}
    reply = client.chat.completions.create(messages=messages, tool_choice="required", **asked)
    (call,) = reply.choices[0].message.tool_calls
    messages += [
        reply.choices[0].message,
        {"role": "tool", "tool_call_id": call.id, "content": "33"},
    ]
    last = client.chat.completions.create(messages=messages, **asked)
    return {
        "name": call.function.name,
        "arguments": call.function.arguments,
        "finish": reply.choices[0].finish_reason,
        "content": last.choices[0].message.content,
    }


def parsed_tools():
    reply = client.chat.completions.parse(
        **ASKED,
        tools=[pydantic_function_tool(Calculate, name="calculate")],
        tool_choice="required",
        extra_body=BUDGET,
    )
    (call,) = reply.choices[0].message.tool_calls
    return {"name": call.function.name, "parsed": type(call.function.parsed_arguments).__name__}


def responses():
    reply = client.responses.create(
        model=MODEL, input=QUESTION, temperature=0, extra_body=BUDGET, store=False
    )
    return {
        "content": reply.output_text,
        "status": reply.status,
        "types": [item.type for item in reply.output],
        "reasoning_tokens": reply.usage.output_tokens_details.reasoning_tokens,
    }


def responses_stream():
    with client.responses.stream(
        model=MODEL, input=QUESTION, temperature=0, extra_body=BUDGET, store=False
    ) as events:
        kinds = [event.type for event in events]
        final = events.get_final_response()
    return {"content": final.output_text, "first": kinds[0], "last": kinds[-1]}


def responses_parse():
    reply = client.responses.parse(
        model=MODEL, input=QUESTION, text_format=Answer, extra_body=BUDGET, store=False
    )
    return {"parsed": type(reply.output_parsed).__name__}


def completions():
    reply = client.completions.create(
        model=MODEL, prompt="The answer is", max_tokens=4, temperature=0
    )
    return {"tokens": reply.usage.completion_tokens, "object": reply.object}


def echo():
    reply = client.completions.create(
        model=MODEL, prompt="The answer is 33.", max_tokens=1, echo=True, logprobs=1
    )
    logprobs = reply.choices[0].logprobs
    return {
        "content": reply.choices[0].text,
        "first": logprobs.token_logprobs[0],
        "scored": sum(value is not None for value in logprobs.token_logprobs) > 3,
    }


def models():
    return {
        "listed": [model.id for model in client.models.list()],
        "retrieved": client.models.retrieve(MODEL).id,
    }


run(globals())
