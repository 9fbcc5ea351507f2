"""Log probabilities as text: what is written is what pydantic would read and write."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ponder.engine.protocol import TokenLogprob
from ponder.engine.scripted import ByteVocabulary
from ponder.protocol.logprobs import (
    LEAST,
    LogprobWriter,
    TextLogprobWriter,
    TokenTexts,
    written,
)
from ponder.protocol.response import ChoiceLogprobs
from ponder.thought.answer import AnswerDelta

ids = st.integers(0, 259)
pairs = st.tuples(ids, st.floats(max_value=0))
entries = st.builds(
    lambda first, top: TokenLogprob(*first, tuple(top)), pairs, st.lists(pairs, max_size=3)
)


@given(st.lists(entries, max_size=4), st.integers(0, 3))
def test_what_is_written_is_read_back(given_: list[TokenLogprob], top: int) -> None:
    vocabulary = ByteVocabulary()
    writer = LogprobWriter(TokenTexts(vocabulary.token_bytes), top)
    text = writer.around(writer.entries(given_))
    read = ChoiceLogprobs.model_validate_json(text)
    assert json.loads(read.model_dump_json()) == json.loads(text)
    for wrote, entry in zip(given_, read.content, strict=True):
        assert len(entry.top_logprobs) == min(top, len(wrote.top))
        said = [(wrote.token_id, wrote.logprob), *wrote.top[:top]]
        for (token_id, logprob), one in zip(said, [entry, *entry.top_logprobs], strict=True):
            assert bytes(one.bytes) == vocabulary.token_bytes(token_id)
            assert one.logprob == max(-9999.0, logprob)
            assert math.isfinite(one.logprob)


@pytest.mark.parametrize("worst", [-math.inf, math.nan])
def test_what_is_no_number_of_json_is_the_least_in_every_dialect(worst: float) -> None:
    texts, entry = TokenTexts(ByteVocabulary().token_bytes), TokenLogprob(97, worst, ((98, worst),))
    columns = TextLogprobWriter(texts, 1).columns(AnswerDelta("a", (entry,)))
    said = json.loads(b"".join(written([[column.encode()] for column in columns])))
    assert (said["token_logprobs"], said["top_logprobs"]) == ([LEAST], [{"a": LEAST, "b": LEAST}])
    (chat,) = json.loads(f"[{LogprobWriter(texts, 1).entries([entry])}]")
    assert (chat["logprob"], chat["top_logprobs"][0]["logprob"]) == (LEAST, LEAST)


def test_nothing_is_written_where_nothing_was_asked_for() -> None:
    writer = LogprobWriter(TokenTexts(ByteVocabulary().token_bytes), None)
    assert writer.around(writer.entries([TokenLogprob(1, -1.0)])) == "null"
