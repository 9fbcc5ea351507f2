"""OpenAI's agents."""

from agents import (
    Agent,
    ModelSettings,
    OpenAIChatCompletionsModel,
    Runner,
    function_tool,
    set_default_openai_client,
    set_tracing_disabled,
)
from openai import AsyncOpenAI
from said import BUDGET, KEY, MODEL, QUESTION, URL, run

client = AsyncOpenAI(base_url=URL, api_key=KEY)
set_default_openai_client(client)
set_tracing_disabled(True)
chats = OpenAIChatCompletionsModel(MODEL, client)
SETTINGS = ModelSettings(temperature=0, verbosity="low", extra_body=BUDGET)


@function_tool
def calculate(expression: str) -> str:
    """Computes an expression."""
    return "1817517"


async def chat():
    reply = await Runner.run(Agent("a", model=chats, model_settings=SETTINGS), QUESTION)
    return {"content": reply.final_output}


async def stream():
    running = Runner.run_streamed(Agent("a", model=chats, model_settings=SETTINGS), QUESTION)
    kinds = [event.type async for event in running.stream_events()]
    return {"content": running.final_output, "events": len(kinds)}


async def responses():
    reply = await Runner.run(Agent("a", model=MODEL, model_settings=SETTINGS), QUESTION)
    return {"content": reply.final_output}


async def tools():
    agent = Agent("a", model=chats, model_settings=SETTINGS, tools=[calculate])
    reply = await Runner.run(agent, "What is 4821 * 377?")
    return {"kinds": [item.type for item in reply.new_items], "content": reply.final_output}


run(globals())
