"""instructor."""

import instructor
from openai import OpenAI
from pydantic import BaseModel
from said import BUDGET, KEY, MESSAGES, MODEL, URL, run


class Answer(BaseModel):
    answer: int


def asked(mode):
    client = instructor.from_openai(OpenAI(base_url=URL, api_key=KEY), mode=mode)
    reply = client.chat.completions.create(
        model=MODEL, messages=MESSAGES, response_model=Answer, temperature=0, extra_body=BUDGET
    )
    return {"parsed": type(reply).__name__}


def tools():
    return asked(instructor.Mode.TOOLS)


def json():
    return asked(instructor.Mode.JSON)


def json_schema():
    return asked(instructor.Mode.JSON_SCHEMA)


run(globals())
