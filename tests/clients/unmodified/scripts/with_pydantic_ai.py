"""pydantic-ai."""

from pydantic import BaseModel
from pydantic_ai import Agent, NativeOutput
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.openai import OpenAIProvider
from said import BUDGET, KEY, MODEL, QUESTION, URL, run

provider = OpenAIProvider(base_url=URL, api_key=KEY)
model = OpenAIChatModel(MODEL, provider=provider)
SETTINGS = {"temperature": 0, "extra_body": BUDGET}


class Answer(BaseModel):
    answer: int


def chat():
    reply = Agent(model, model_settings=SETTINGS).run_sync(QUESTION)
    parts = [part.part_kind for part in reply.all_messages()[-1].parts]
    return {"content": reply.output, "parts": parts}


async def stream():
    async with Agent(model, model_settings=SETTINGS).run_stream(QUESTION) as reply:
        return {"content": "".join([text async for text in reply.stream_text(delta=True)])}


def second_turn():
    agent = Agent(model, model_settings=SETTINGS)
    first = agent.run_sync(QUESTION)
    return {"content": agent.run_sync(QUESTION, message_history=first.all_messages()).output}


def native_output():
    agent = Agent(model, model_settings=SETTINGS, output_type=NativeOutput(Answer))
    return {"parsed": type(agent.run_sync(QUESTION).output).__name__}


def tool_output():
    agent = Agent(model, model_settings=SETTINGS, output_type=Answer)
    return {"parsed": type(agent.run_sync(QUESTION).output).__name__}


def responses():
    agent = Agent(OpenAIResponsesModel(MODEL, provider=provider), model_settings=SETTINGS)
    return {"content": agent.run_sync(QUESTION).output}


run(globals())
