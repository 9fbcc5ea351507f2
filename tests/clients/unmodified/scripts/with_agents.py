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
RAW = "raw_response_event"
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


async def responses_tools():
    """Its default model class, streamed: the thought and the call go back as items."""
    agent = Agent("a", model=MODEL, model_settings=SETTINGS, tools=[calculate])
    running = Runner.run_streamed(agent, "What is 4821 * 377?")
    raw = [event.data.type async for event in running.stream_events() if event.type == RAW]
    return {
        "kinds": [item.type for item in running.new_items],
        "content": running.final_output,
        "turns": raw.count("response.completed"),
        "deltas": raw.count("response.function_call_arguments.delta") > 0,
    }


run(globals())
