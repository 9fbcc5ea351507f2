import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from random import Random
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from ponder.tasks.arithmetic import calculate
from ponder.tasks.problems import Problem, split_of
from ponder.tasks.tiny import TINY_TASKS
from ponder.tasks.worked import Worked
from ponder.training.coldstart import calls, openings, smalltalk
from ponder.training.coldstart.calls import CALLING, Conversation, conversation
from ponder.training.coldstart.examples import ExampleWriter
from ponder.training.coldstart.thoughts import CLOSE_TEXT
from ponder.training.run.recipe import SftRecipe
from training.coldstart.test_examples import split, written

seeds = st.integers(0, 2**32)
WRITTEN = re.compile(r"<tool_call>\n(\{.*\})\n</tool_call>")


def other(rng: Random) -> Worked:
    """A question that needs no tool, of any kind."""
    draw: Callable[[Random], Worked] = rng.choice(
        (openings.opening, smalltalk.talk, partial(TINY_TASKS[0].work, difficulty=3))
    )
    return draw(rng)


def chat(seed: int) -> Conversation:
    rng = Random(seed)
    return conversation(rng, "train", partial(other, rng))


def calculator(it: Conversation, name: str) -> list[str]:
    """The parameters of a listed tool."""
    (tool,) = [tool["function"] for tool in it.tools if tool["function"]["name"] == name]
    return list(tool["parameters"]["properties"])


def made(it: Conversation) -> Iterator[tuple[str, Any]]:
    """Every call in a conversation, its reply's among them: name and arguments."""
    for turn in it.turns:
        for call in turn.get("tool_calls", ()):
            yield call["function"]["name"], call["function"]["arguments"]
    for text in WRITTEN.findall(it.worked.problem.answer):
        call = json.loads(text)
        assert list(call) == ["name", "arguments"]
        yield call["name"], call["arguments"]


@given(seeds)
def test_a_conversation_repeats_from_a_seed(seed: int) -> None:
    assert chat(seed) == chat(seed)


@given(seeds)
def test_every_call_is_of_a_listed_tool_and_evaluates(seed: int) -> None:
    it = chat(seed)
    for name, arguments in made(it):
        ((parameter, expression),) = arguments.items()
        assert calculator(it, name) == [parameter]
        calculate(expression)


@given(seeds)
def test_a_call_that_is_due_has_the_value_asked_for(seed: int) -> None:
    it = chat(seed)
    for text in WRITTEN.findall(it.worked.problem.answer):
        expression = next(iter(json.loads(text)["arguments"].values()))
        assert it.worked.problem.id.endswith(f":{expression.replace(' ', '')}")
        assert it.turns[-1] == {"role": "user", "content": it.worked.problem.question}
        content = Problem(it.worked.problem.id, "calculator", 1, "", "")
        assert split_of(content) == "train"


@given(seeds)
def test_a_result_is_stated_as_it_came(seed: int) -> None:
    it = chat(seed)
    if it.turns[-1]["role"] != "tool":
        return
    said = re.search(r"is (\S+)\.$", it.worked.problem.answer)
    assert (said is None) == (it.worked.problem.answer == "The tool failed, so I cannot tell.")
    assert said is None or said[1] in it.turns[-1]["content"]


def test_it_holds_every_sort_of_reply() -> None:
    sorts: Counter[str] = Counter()
    for seed in range(2000):
        it = chat(seed)
        replied = "<tool_call>" in it.worked.problem.answer
        sorts["call" if replied else it.turns[-1]["role"]] += 1
        if not any(made(it)):
            sorts["none needed"] += 1
            names = {tool["function"]["name"] for tool in it.tools}
            digits = any(letter.isdigit() for letter in it.worked.problem.question)
            talk = it.worked.problem.family == smalltalk.FAMILY and digits
            assert not (talk and names & {"calculate", "calculator", "calc"})
        sorts["several tools"] += len(it.tools) > 1
    assert 0.35 < sorts["call"] / 2000 < 0.5
    assert 0.15 < sorts["tool"] / 2000 < 0.3
    assert sorts["none needed"] > 400
    assert sorts["several tools"] > 400


def test_calls_come_whole_wherever_a_thought_is_cut(tokenizer: Any, recipe: SftRecipe) -> None:
    thoughts = set()
    for example in written(tokenizer, recipe, 400, tools=1.0, cut=1.0):
        prompt, thought, answer = split(tokenizer, example)
        assert prompt.endswith("<|im_start|>assistant\n<think>\n")
        assert answer.endswith("<|im_end|>")
        if "<tool_call>" in answer:
            found = WRITTEN.fullmatch(answer.removesuffix("<|im_end|>"))
            assert found is not None
            calculate(next(iter(json.loads(found[1])["arguments"].values())))
            thoughts.add(len(thought))
    assert {0, 5, 10} <= thoughts


def test_an_example_is_what_the_server_renders(tokenizer: Any, recipe: SftRecipe) -> None:
    """The tokens of a call in the history are those that the model wrote."""
    writer = ExampleWriter(tokenizer, recipe.traces.model_copy(update={"tools": 1.0}), "train")
    rng = Random(4)
    calling = [
        e for e in (writer.write(rng, True) for _ in range(100)) if e.ids[-2] == _end(tokenizer)
    ]
    assert len(calling) > 20
    for example in calling:
        close = tokenizer.encode(CLOSE_TEXT)
        at = max(i for i in range(len(example.ids)) if example.ids[i : i + 3] == close)
        reply = example.ids[at + len(close) : -1]
        call = json.loads(WRITTEN.fullmatch(tokenizer.decode(reply))[1])  # type: ignore[index]
        turns = [{"role": "assistant", "content": "", "tool_calls": [{"function": call}]}]
        again = tokenizer.apply_chat_template(turns, tokenize=False)
        assert tokenizer.encode(again)[-2 - len(reply) : -2] == reply


def _end(tokenizer: Any) -> int:
    token: int = tokenizer.convert_tokens_to_ids("</tool_call>")
    return token


def test_the_corpus_has_the_words_of_the_template(tokenizer: Any) -> None:
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": "?"}], tools=[{}], tokenize=False
    )
    listed = CALLING.replace("<tools>", "<tools>\n{}")
    assert prompt.startswith(f"<|im_start|>system\n{listed}<|im_end|>")
    assert calls.FAMILY not in {task.name for task in TINY_TASKS}
