"""litellm: its SDK, and what users see behind its proxy."""

import os
import warnings

import litellm
from openai import OpenAI
from said import BUDGET, KEY, MESSAGES, MODEL, QUESTION, TOOL, URL, run

warnings.simplefilter("ignore")
ASKED = {"messages": MESSAGES, "api_base": URL, "api_key": KEY, "temperature": 0}


def told(reply):
    choice = reply.choices[0]
    return {
        "content": choice.message.content,
        "reasoning": getattr(choice.message, "reasoning_content", None),
        "reasoning_tokens": reply.usage.completion_tokens_details.reasoning_tokens,
    }


def openai():
    return told(litellm.completion(model=f"openai/{MODEL}", **ASKED, extra_body=BUDGET))


def hosted_vllm():
    return told(litellm.completion(model=f"hosted_vllm/{MODEL}", **ASKED, **BUDGET))


def stream():
    chunks = litellm.completion(model=f"hosted_vllm/{MODEL}", **ASKED, **BUDGET, stream=True)
    texts = [chunk.choices[0].delta for chunk in chunks]
    return {
        "content": "".join(delta.content or "" for delta in texts),
        "reasoning": "".join(getattr(delta, "reasoning_content", None) or "" for delta in texts),
    }


def second_turn():
    asked = {"model": f"openai/{MODEL}", "api_base": URL, "api_key": KEY, "temperature": 0}
    messages = list(MESSAGES)
    messages.append(litellm.completion(messages=messages, **asked).choices[0].message)
    messages.append({"role": "user", "content": QUESTION})
    return told(litellm.completion(messages=messages, **asked, extra_body=BUDGET))


def text_completion():
    reply = litellm.text_completion(
        model=f"text-completion-openai/{MODEL}",
        prompt="The answer is",
        max_tokens=4,
        api_base=URL,
        api_key=KEY,
    )
    return {"tokens": reply.usage.completion_tokens}


def tools():
    reply = litellm.completion(
        model=f"hosted_vllm/{MODEL}", **ASKED, **BUDGET, tools=[TOOL], tool_choice="required"
    )
    (call,) = reply.choices[0].message.tool_calls
    return {"name": call.function.name}


def responses():
    reply = litellm.responses(
        model=f"openai/{MODEL}", input=QUESTION, api_base=URL, api_key=KEY, extra_body=BUDGET
    )
    return {"types": [item.type for item in reply.output]}


def behind():
    return OpenAI(base_url=os.environ["PROXY_URL"] + "/v1", api_key=os.environ["PROXY_KEY"])


def proxy():
    return told(
        behind().chat.completions.create(
            model="hosted", messages=MESSAGES, temperature=0, extra_body=BUDGET
        )
    )


def proxy_stream():
    saw = {}
    for model in ("hosted", "openai"):
        chunks = behind().chat.completions.create(
            model=model, messages=MESSAGES, temperature=0, stream=True, extra_body=BUDGET
        )
        said = {"content": "", "cause": None}
        for chunk in chunks:
            for choice in chunk.choices:
                said["content"] += choice.delta.content or ""
                report = getattr(choice, "ponder", None)
                said["cause"] = report["end_cause"] if report else said["cause"]
        saw[model] = said
    return saw


run(globals())
