"""LlamaIndex."""

from llama_index.core.llms import ChatMessage
from llama_index.llms.openai_like import OpenAILike
from said import BUDGET, KEY, MODEL, QUESTION, URL, run

SERVER = {"model": MODEL, "api_base": URL, "api_key": KEY, "temperature": 0, "max_retries": 0}


def chat():
    model = OpenAILike(**SERVER, is_chat_model=True, additional_kwargs={"extra_body": BUDGET})
    return {"content": model.chat([ChatMessage(role="user", content=QUESTION)]).message.content}


def stream():
    model = OpenAILike(**SERVER, is_chat_model=True, additional_kwargs={"extra_body": BUDGET})
    chunks = model.stream_chat([ChatMessage(role="user", content=QUESTION)])
    return {"content": "".join(chunk.delta or "" for chunk in chunks)}


def complete():
    return {"content": OpenAILike(**SERVER, max_tokens=4).complete("The answer is").text}


run(globals())
