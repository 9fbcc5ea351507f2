"""vLLM's own parsers behind the answer's writer: every syntax, in pieces of any size."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from ponder.checkpoint.calls import SYNTAXES
from ponder.engine.harmony_calls import Harmony
from ponder.engine.protocol import CallPart, EngineSetupError, RequestRefusedError, Tool
from ponder.engine.tokenizer import HFTokenizer
from ponder.engine.vllm_calls import VLLMCalling
from ponder.engine.vllm_grammars import check
from ponder.server.settings import BUNDLED_MODEL
from ponder.thought.answer import AnswerDelta
from ponder.thought.calls import CallRules, CallWriter

ARGUMENTS = {"city": "São Paulo", "days": 3}
_JSON = '{"city": "São Paulo", "days": 3}'
_QWEN = "<parameter=city>São Paulo</parameter>\n<parameter=days>3</parameter>"
_GLM = (
    "<arg_key>city</arg_key><arg_value>São Paulo</arg_value>"
    "<arg_key>days</arg_key><arg_value>3</arg_value>"
)
_INVOKE = '<invoke name="weather">\n<parameter name="city">São Paulo</parameter>\n'
_DSML = (
    '<｜DSML｜invoke name="weather">\n'
    '<｜DSML｜parameter name="city" string="true">São Paulo</｜DSML｜parameter>\n'
    '<｜DSML｜parameter name="days" string="false">3</｜DSML｜parameter>\n</｜DSML｜invoke>\n'
)
_M3 = "]<]minimax[>["
CALLS = {
    "hermes": f'<tool_call>\n{{"name": "weather", "arguments": {_JSON}}}\n</tool_call>',
    "granite4": f'<tool_call>\n{{"name": "weather", "arguments": {_JSON}}}\n</tool_call>',
    "granite": f'<|tool_call|>[{{"name": "weather", "arguments": {_JSON}}}]',
    "mistral": f'[TOOL_CALLS][{{"name": "weather", "arguments": {_JSON}}}]',
    "apertus": f'<|tools_prefix|>[{{"weather": {_JSON}}}]<|tools_suffix|>',
    "qwen3_coder": f"<tool_call>\n<function=weather>\n{_QWEN}\n</function>\n</tool_call>",
    "seed_oss": f"<seed:tool_call>\n<function=weather>\n{_QWEN}\n</function>\n</seed:tool_call>",
    "glm47": f"<tool_call>weather\n{_GLM}\n</tool_call>",
    "hy_v3": f"<tool_calls><tool_call>weather<tool_sep>{_GLM}</tool_call></tool_calls>",
    "minimax_m2": (
        f'<minimax:tool_call>\n{_INVOKE}<parameter name="days">3</parameter>\n</invoke>\n'
        f"</minimax:tool_call>"
    ),
    "minimax_m3": (
        f'{_M3}<tool_call>\n{_M3}<invoke name="weather">{_M3}<city>São Paulo{_M3}</city>'
        f"{_M3}<days>3{_M3}</days>{_M3}</invoke>\n{_M3}</tool_call>"
    ),
    "kimi_k2": (
        f"<|tool_calls_section_begin|><|tool_call_begin|>functions.weather:0"
        f"<|tool_call_argument_begin|>{_JSON}<|tool_call_end|><|tool_calls_section_end|>"
    ),
    "deepseek_v31": (
        f"<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>weather<｜tool▁sep｜>{_JSON}"
        f"<｜tool▁call▁end｜><｜tool▁calls▁end｜>"
    ),
    "deepseek_v32": f"<｜DSML｜function_calls>\n{_DSML}</｜DSML｜function_calls>",
    "deepseek_v4": f"<｜DSML｜tool_calls>\n{_DSML}</｜DSML｜tool_calls>",
    "gemma4": '<|tool_call>call:weather{city:<|"|>São Paulo<|"|>,days:3}<tool_call|>',
    "lfm2": '<|tool_call_start|>[weather(city="São Paulo", days=3)]<|tool_call_end|>',
    "llama3_json": f'{{"name": "weather", "parameters": {_JSON}}}',
}
HELD = {"hermes", "qwen3_coder", "glm47", "minimax_m2", "kimi_k2", "llama3_json"}
HELD |= {"deepseek_v31", "deepseek_v32", "deepseek_v4"}
UNTRIED = {"cohere_command3": "needs a package of Cohere's", "kimi_k3": "writes calls in an XML"}
WORDS = (
    *("<tool_call>", "</tool_call>", "<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>"),
    *("<seed:tool_call>", "</seed:tool_call>", "<minimax:tool_call>", "</minimax:tool_call>"),
    *("<tool_calls>", "</tool_calls>", "<tool_sep>", "｜DSML｜", _M3),
)
SPECIAL = (
    *("<|tool_calls_section_begin|>", "<|tool_calls_section_end|>", "<|tool_call_begin|>"),
    *("<|tool_call_argument_begin|>", "<|tool_call_end|>", "<|tool_call_start|>", "[TOOL_CALLS]"),
    *("<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>", "<｜tool▁call▁begin｜>", "<｜tool▁sep｜>"),
    *("<｜tool▁call▁end｜>", "<|tool_call>", "<tool_call|>", '<|"|>', "<|tools_prefix|>"),
    *("<|tools_suffix|>", "<|tool_call|>", "<|python_tag|>"),
)
_THREES = {"type": "integer", "multipleOf": 3}
WEATHER = Tool(
    name="weather",
    parameters={
        "type": "object",
        "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
        "required": ["city", "days"],
    },
)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> HFTokenizer:
    """The bundled one with the tokens of all the syntaxes, as models have them."""
    directory = tmp_path_factory.mktemp("tokens") / "model"
    shutil.copytree(BUNDLED_MODEL, directory)
    own = AutoTokenizer.from_pretrained(str(directory))
    own.add_tokens(list(WORDS))
    own.add_special_tokens({"additional_special_tokens": list(SPECIAL)})
    own.chat_template = "{{ tools }}" + "".join(SPECIAL)
    own.save_pretrained(str(directory))
    return HFTokenizer(Path(directory))


def read(
    tokenizer: HFTokenizer, syntax: str, text: str, ends: Sequence[int], *, cut: bool = False
) -> tuple[str, list[tuple[str | None, str]], int]:
    """The text, the calls, and how many of them are whole; the pieces end at these tokens."""
    calling = VLLMCalling(syntax, tokenizer.transformers)
    rules = CallRules(calling.parsers([WEATHER]), tokenizer.special_tokens)
    writer, ids = CallWriter(tokenizer, rules), tokenizer.encode(text)
    events: list[AnswerDelta | CallPart] = []
    for at, token_id in enumerate(ids, 1):
        writer.feed(token_id)
        if at in ends:
            events += writer.events()
    events += writer.events(last=True, cut=cut)
    calls: list[tuple[str | None, str]] = []
    for event in events:
        if isinstance(event, CallPart):
            if event.name is not None:
                calls.append((event.name, ""))
            name, arguments = calls[event.index]
            calls[event.index] = (name, arguments + event.arguments)
    said = "".join(event.text for event in events if isinstance(event, AnswerDelta))
    return said, calls, writer.calls


def test_every_syntax_is_tried() -> None:
    theirs = {known.parser for known in SYNTAXES if known.parser} - {Harmony.name}
    assert theirs == {*CALLS, *UNTRIED}


def test_every_call_begins_with_the_marker_of_its_syntax() -> None:
    for known in SYNTAXES:
        if known.marker is not None and known.parser in CALLS:
            assert CALLS[known.parser].startswith(known.marker.replace(":opensource", ""))


@pytest.mark.parametrize("syntax", CALLS)
@pytest.mark.parametrize("step", [1, 7, 32, 999])
def test_a_call_is_read_in_pieces_of_any_size(
    tokenizer: HFTokenizer, syntax: str, step: int
) -> None:
    before = "" if syntax == "llama3_json" else "Let me look. "  # a call of Llama's is all there is
    text = before + CALLS[syntax]
    said, ((name, arguments),), whole = read(tokenizer, syntax, text, range(step, 999, step))
    assert (said, name, whole) == (before.rstrip(), "weather", 1)
    assert json.loads(arguments) == ARGUMENTS


@pytest.mark.parametrize("syntax", CALLS)
def test_text_without_a_call_is_shown_as_it_is(tokenizer: HFTokenizer, syntax: str) -> None:
    for text in ("It is warm there: 30 °C. ", "So 1 < 2, and <tool", "{not} [a] call <"):
        assert read(tokenizer, syntax, text, range(1, 99)) == (text, [], 0)


@pytest.mark.parametrize("syntax", CALLS)
@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cut=st.floats(0, 1), step=st.integers(1, 20))
def test_a_call_that_is_cut_is_never_whole(
    tokenizer: HFTokenizer, syntax: str, cut: float, step: int
) -> None:
    ids = tokenizer.encode(CALLS[syntax])
    city = len(tokenizer.encode(CALLS[syntax].partition("Paulo")[0]))
    text = tokenizer.spell(ids[: int(cut * city)])
    _, calls, whole = read(tokenizer, syntax, text, range(step, 999, step), cut=True)
    assert whole == 0
    assert len(calls) <= 1


@pytest.mark.parametrize("syntax", CALLS)
@pytest.mark.parametrize("step", [1, 7, 999])
def test_a_call_that_is_cut_leaves_no_markup_in_the_text(
    tokenizer: HFTokenizer, syntax: str, step: int
) -> None:
    before = "" if syntax == "llama3_json" else "Well. "
    ids, begun = tokenizer.encode(before + CALLS[syntax]), len(tokenizer.encode(before))
    for end in range(begun + 1, len(ids)):
        text = tokenizer.spell(ids[:end])
        said, _, _ = read(tokenizer, syntax, text, range(step, 999, step), cut=True)
        kept = text if text.endswith(" <") else before.rstrip()  # one sign may be anything
        assert said == kept


@pytest.mark.parametrize("syntax", CALLS)
@pytest.mark.parametrize("step", [1, 999])
@pytest.mark.parametrize(
    "text",
    ["It is warm: 30 °C. ", "So 1 < 2, and <tool", "{not} [a] call <", '{"answer": 1, "b', "[1"],
)
def test_text_that_is_cut_is_kept(
    tokenizer: HFTokenizer, syntax: str, step: int, text: str
) -> None:
    assert read(tokenizer, syntax, text, range(step, 99, step), cut=True) == (text, [], 0)


@pytest.mark.parametrize("syntax", CALLS)
def test_calls_are_held_where_vllm_knows_how(tokenizer: HFTokenizer, syntax: str) -> None:
    calling = VLLMCalling(syntax, tokenizer.transformers)
    assert calling.grammar([WEATHER], required=False, several=True) is None
    if syntax not in HELD:
        with pytest.raises(RequestRefusedError, match="cannot be enforced"):
            calling.grammar([WEATHER], required=True, several=True)
        return
    for several in (True, False):
        grammar = calling.grammar([WEATHER], required=True, several=several)
        assert grammar is not None
        check(grammar)


@pytest.mark.parametrize("syntax", sorted(HELD))
def test_a_call_that_has_to_be_keeps_to_its_schema_where_a_grammar_can_hold_it(
    tokenizer: HFTokenizer, syntax: str
) -> None:
    """Without `strict` nobody promised that: what no grammar can hold is left free."""
    calling = VLLMCalling(syntax, tokenizer.transformers)
    odd = replace(WEATHER, parameters={"type": "object", "properties": {"n": _THREES}})
    held, free = (calling.grammar([tool], required=True, several=True) for tool in (WEATHER, odd))
    assert held is not None and '"days"' in held.rule
    assert free is not None and "multipleOf" not in free.rule
    for required in (True, False):
        with pytest.raises(
            RequestRefusedError, match="tool 'weather': `multipleOf` at "
        ) as refused:
            calling.grammar([replace(odd, strict=True)], required=required, several=True)
        assert refused.value.param == "tools"


def test_a_syntax_that_is_none_is_refused(tokenizer: HFTokenizer) -> None:
    with pytest.raises(EngineSetupError, match="--tool-parser klingon is unknown to vLLM, which"):
        VLLMCalling("klingon", tokenizer.transformers)
