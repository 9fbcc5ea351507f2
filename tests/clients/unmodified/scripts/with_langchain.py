"""LangChain."""

from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAI
from pydantic import BaseModel
from said import BUDGET, KEY, MODEL, QUESTION, URL, run

SERVER = {"base_url": URL, "api_key": KEY, "model": MODEL, "temperature": 0, "max_retries": 0}
chat = ChatOpenAI(**SERVER, extra_body=BUDGET, include_response_headers=True)


class Answer(BaseModel):
    answer: int


@tool
def calculate(expression: str) -> str:
    """Computes an expression."""
    return "33"


def invoke():
    reply = chat.invoke(QUESTION)
    return {
        "content": reply.content,
        "reasoning_tokens": reply.usage_metadata["output_token_details"]["reasoning"],
        "cause": reply.response_metadata["headers"]["x-ponder-end-cause"],
    }


def effort():
    reply = ChatOpenAI(**SERVER, reasoning_effort="none").invoke(QUESTION)
    return {"reasoning_tokens": reply.usage_metadata["output_token_details"]["reasoning"]}


def stream():
    return {"content": "".join(chunk.content for chunk in chat.stream(QUESTION))}


def completions():
    reply = OpenAI(**SERVER, max_tokens=4).invoke("The answer is")
    return {"content": reply}


def structured():
    return {"parsed": type(chat.with_structured_output(Answer).invoke(QUESTION)).__name__}


def tools():
    asking = chat.bind_tools([calculate], tool_choice="required")
    first = asking.invoke(QUESTION)
    (call,) = first.tool_calls
    turns = [HumanMessage(QUESTION), first, ToolMessage("33", tool_call_id=call["id"])]
    return {"name": call["name"], "content": chat.bind_tools([calculate]).invoke(turns).content}


run(globals())
