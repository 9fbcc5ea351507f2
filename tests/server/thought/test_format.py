from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ponder.engine.scripted import ByteVocabulary
from ponder.thought.errors import InvalidCloseText
from ponder.thought.families import FAMILIES, recognise
from ponder.thought.format import (
    Close,
    CompiledFormat,
    Hint,
    Marker,
    ThoughtFormat,
)
from server.thought.helpers import FORM, SINGLE, SPELT


@pytest.mark.parametrize(
    ("template", "name"),
    [
        ("<|im_start|>…{%- if enable_thinking %}<think>\n\n</think>", "Qwen3"),
        ("<|im_start|>…truncate_history_thinking…<think></think>", "Nemotron 3"),
        ("<SPECIAL_10>System…<think>", "Nemotron Nano 2"),
        ("[gMASK]<sop>…<think></think>", "GLM"),
        ("<seed:bos>…<seed:think>", "Seed-OSS"),
        ("<｜Assistant｜>…split('</think>')", "DeepSeek"),
    ],
)
def test_a_family_is_known_by_its_template(template: str, name: str) -> None:
    row = recognise(template, "qwen3" if name == "Qwen3" else "")
    assert row is not None
    assert row.format.name == name


@pytest.mark.parametrize("template", ["", "<|im_start|>{{ message }}", "[INST] {{ message }}"])
def test_a_model_that_does_not_think_has_no_family(template: str) -> None:
    assert recognise(template) is None


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.format.name)
@pytest.mark.parametrize("vocabulary", [SINGLE, SPELT])
def test_every_family_closes_its_own_thoughts(family: object, vocabulary: ByteVocabulary) -> None:
    form: ThoughtFormat = family.format  # type: ignore[attr-defined]
    compiled = CompiledFormat.of(form, "template", vocabulary)
    assert compiled.close.ids == tuple(vocabulary.encode(form.close_text))
    assert not compiled.close.shown.strip()


def test_a_marker_is_matched_by_its_id_where_it_is_one_token() -> None:
    assert Marker.of("</think>", SINGLE) == Marker("</think>", SINGLE.END_THINK)
    assert Marker.of("</think>", SPELT) == Marker("</think>", None)


@pytest.mark.parametrize("vocabulary", [SINGLE, SPELT])
def test_close(vocabulary: ByteVocabulary) -> None:
    end = Marker.of("</think>", vocabulary)
    close = Close.of("\nSo.</think>\n\n", end, "Answer: ", vocabulary)
    assert close.shown == "\n\nAnswer: "
    assert close.ids == tuple(vocabulary.encode("\nSo.</think>\n\nAnswer: "))


@pytest.mark.parametrize("vocabulary", [SINGLE, SPELT])
@pytest.mark.parametrize("text", ["", "So.", "</think></think>", "a</think>b</think>"])
def test_a_close_text_holds_the_end_marker_exactly_once(
    text: str, vocabulary: ByteVocabulary
) -> None:
    end = Marker.of("</think>", vocabulary)
    with pytest.raises(InvalidCloseText, match="exactly once") as caught:
        Close.of(text, end, "", vocabulary)
    assert caught.value.field == "close_text"


def test_an_end_marker_that_its_own_text_does_not_encode_to_is_refused() -> None:
    with pytest.raises(InvalidCloseText):
        Close.of("So.</think>", Marker("</think>", SINGLE.END_THINK), "", SPELT)


def test_a_format_compiles_to_token_ids() -> None:
    compiled = CompiledFormat.of(FORM, "model", SINGLE)
    assert compiled.start.token_id == SINGLE.THINK
    assert compiled.end.token_id == SINGLE.END_THINK
    assert compiled.tool_call == Marker("<tool_call>", SINGLE.TOOL_CALL)
    assert compiled.opened_by == "model"
    assert CompiledFormat.of(replace(FORM, tool_call=None), "model", SINGLE).tool_call is None


def test_hints_need_a_template_that_opens_the_thought() -> None:
    form = replace(FORM, hint="Within {budget}.", trained_budgets=(9, 5))
    hints = (Hint(5, tuple(b"Within 5.")), Hint(9, tuple(b"Within 9.")))
    assert CompiledFormat.of(form, "template", SINGLE).hints == hints
    assert CompiledFormat.of(form, "model", SINGLE).hints == ()
    assert CompiledFormat.of(FORM, "template", SINGLE).hint(100) is None


@given(trained=st.sets(st.integers(1, 50), min_size=1), budget=st.integers(0, 60))
def test_a_hint_never_exceeds_the_request(trained: set[int], budget: int) -> None:
    form = replace(FORM, hint="{budget}", trained_budgets=tuple(trained))
    hint = CompiledFormat.of(form, "template", SINGLE).hint(budget)
    if hint is None:
        assert budget < min(trained)
    else:
        assert hint.ids == tuple(str(hint.budget).encode())
        assert hint.budget in trained
        assert not any(hint.budget < other <= budget for other in trained)
        assert hint.budget <= budget
