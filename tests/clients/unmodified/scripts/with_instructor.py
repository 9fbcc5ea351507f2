"""instructor."""

import instructor
from openai import OpenAI
from pydantic import BaseModel, Field
from said import BUDGET, KEY, MESSAGES, MODEL, URL, run

# The bundled model has seen no JSON but that of calls.
LARGE = [{"role": "user", "content": "What is 4821 * 377?"}]


class Answer(BaseModel):
    answer: int = Field(ge=0, le=999)


class Anything(BaseModel):
    """Of any JSON object: that mode holds the answer to no schema."""

    answer: object = None


def asked(mode, model=Answer, messages=MESSAGES):
    client = instructor.from_openai(OpenAI(base_url=URL, api_key=KEY), mode=mode)
    reply = client.chat.completions.create(
        model=MODEL, messages=messages, response_model=model, temperature=0, extra_body=BUDGET
    )
    return {"parsed": type(reply).__name__}


def tools():
    return asked(instructor.Mode.TOOLS)


def json():
    return asked(instructor.Mode.JSON, Anything, LARGE)


def json_schema():
    return asked(instructor.Mode.JSON_SCHEMA)


run(globals())
