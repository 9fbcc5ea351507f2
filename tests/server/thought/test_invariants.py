"""The promises of a thought, on models that do anything at any moment."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate, islice, pairwise
from typing import Literal

from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from ponder.engine.protocol import Sampling
from ponder.engine.scripted import ByteVocabulary
from ponder.thought.answer import AnswerDelta
from ponder.thought.budget import Plan
from ponder.thought.outcome import ThoughtDelta
from ponder.thought.segment import AnswerRules
from ponder.thought.text import TextDecoder
from server.thought.helpers import EOS, PROMPT, SINGLE, SPELT, Life, compiled, live, plan, tokens
from server.thought.oracle import HIDDEN, Expected, answer_text, expect

examples = settings(max_examples=100, deadline=None)

STOP_TOKEN = ord("Z")


@dataclass(frozen=True)
class Case:
    """A model that says anything, and a request that asks for anything."""

    says: list[list[int]]
    vocabulary: ByteVocabulary
    opened_by: Literal["template", "model"]
    plan: Plan
    rules: AnswerRules
    sampling: Sampling
    chunk_sizes: tuple[int, ...]

    def live(self, chunk_sizes: tuple[int, ...] = (1,)) -> Life:
        return live(
            script=tokens(*self.says),
            vocabulary=self.vocabulary,
            opened_by=self.opened_by,
            plan=self.plan,
            rules=self.rules,
            sampling=self.sampling,
            chunk_sizes=chunk_sizes,
        )

    @property
    def close(self) -> list[int]:
        return list(compiled(self.vocabulary).close.ids)

    @property
    def plain(self) -> bool:
        """The engine masks nothing: what the model says is what is sampled."""
        return not (self.sampling.ignore_eos or self.plan.min_thinking)

    @property
    def reopens(self) -> bool:
        """The model may open another block: a start marker follows where none opens the thought.

        A request for the answer alone forbids it where it is a single token. An opening that leaves
        no room for a thought is none, and its marker is the answer's.
        """
        start = bytes_of(self.vocabulary.encode("<think>"))
        first, later = bytes_of(self.says[0]), self.says[1:] or self.says
        room = self.plan.allowance - self.plan.reserve - len(self.close)
        opening = first[: len(first) - len(first.lstrip())] + start
        if self.opened_by == "model" and first.startswith(opening) and len(opening) < room:
            first = first.lstrip().removeprefix(start)
        again = [] if self.vocabulary is SINGLE else [bytes_of(said) for said in later]
        return any(start in said for said in (first, *again))

    def expected(self) -> Expected | None:
        endless = (*self.says[0], *b"x" * self.plan.allowance)
        sampled = list(islice(endless, self.plan.allowance))
        return expect(sampled, self.vocabulary, self.opened_by, self.plan)


def bytes_of(ids: list[int]) -> str:
    """Ids as characters, to search among them."""
    return "".join(map(chr, ids))


TEXTS = ("so ", "3.14", "wait. ", "\n", "é", "漢。", "🙂", "END", "Z", " ", "<", "</thi", "<tool_c")
OPENERS: tuple[Literal["template", "model"], ...] = ("template", "model")
MARKERS = ("</think>", "<think>", "<tool_call>")


def sayings(vocabulary: ByteVocabulary) -> st.SearchStrategy[list[int]]:
    """Texts, markers, stray bytes and EOS in any order."""
    parts = st.one_of(
        st.sampled_from(TEXTS).map(lambda text: list(text.encode())),
        st.sampled_from(TEXTS).map(lambda text: list(text.encode())),
        st.sampled_from(MARKERS).map(vocabulary.encode),
        st.binary(min_size=1, max_size=3).map(list),
        st.just([EOS]),
    )
    return st.lists(parts, max_size=14).map(lambda said: [t for part in said for t in part])


@st.composite
def cases(draw: st.DrawFn) -> Case:
    vocabulary = draw(st.sampled_from([SINGLE, SPELT]))
    opened_by = draw(st.sampled_from(OPENERS))
    budget, reserve = draw(st.integers(1, 40)), draw(st.integers(1, 8))
    close = len(compiled(vocabulary).close.ids)
    says = draw(st.lists(sayings(vocabulary), min_size=1, max_size=3))
    if opened_by == "model" and draw(st.booleans()):
        blanks = draw(st.sampled_from([b"", b"\n", b"  \n"]))
        says[0] = [*blanks, *vocabulary.encode("<think>"), *says[0]]
    # What makes thought and answer two requests, half of the time nothing.
    apart = draw(st.sampled_from(["", "", "", "", "stop token", "min tokens", "penalty", "masks"]))
    masks = apart == "masks" and vocabulary is SINGLE
    return Case(
        says=says,
        vocabulary=vocabulary,
        opened_by=opened_by,
        plan=Plan(
            requested=budget,
            budget=budget,
            source=draw(st.sampled_from(["request", "context"])),
            allowance=budget + close + reserve + draw(st.sampled_from([0, 0, 1, 9, 60])),
            reserve=reserve,
            grace=draw(st.sampled_from([0, budget // 3, budget])),
            min_thinking=draw(st.integers(1, budget)) if masks else 0,
            max_answer=draw(st.sampled_from([None, 1, 5])),
        ),
        rules=AnswerRules(
            stop=draw(st.sampled_from([(), (), ("\n",), ("END", "t. ")])),
            stop_token_ids=(STOP_TOKEN,) if apart == "stop token" else (),
            min_tokens=3 if apart == "min tokens" else 0,
        ),
        sampling=Sampling(
            max_tokens=1,
            presence_penalty=0.5 if apart == "penalty" else 0.0,
            ignore_eos=draw(st.integers(0, 7)) == 0,
        ),
        chunk_sizes=tuple(draw(st.lists(st.integers(1, 30), min_size=1, max_size=3))),
    )


def answered(ids: list[int], vocabulary: ByteVocabulary) -> str:
    """An answer's text, with `HIDDEN` where an end marker was."""
    marker = vocabulary.encode("</think>")
    text, half = "", list[int]()
    while ids:
        if ids[: len(marker)] == marker:
            text += bytes(half).decode(errors="replace") + HIDDEN
            ids, half = ids[len(marker) :], []
        else:
            half += vocabulary.token_bytes(ids[0])
            ids = ids[1:]
    return text + decode(half, vocabulary)[0]


def decode(ids: list[int], vocabulary: ByteVocabulary) -> tuple[str, bool]:
    """Text, and whether it ends in the middle of a character."""
    decoder = TextDecoder(vocabulary)
    return "".join(decoder.feed(token_id) for token_id in ids), decoder.pending


def dangling(*says: int, opened_by: Literal["template", "model"], single: bool) -> Case:
    """A model that breaks off in the middle of a character, where a marker comes."""
    return Case(
        says=[list(says)],
        vocabulary=SINGLE if single else SPELT,
        opened_by=opened_by,
        plan=plan(20),
        rules=AnswerRules(),
        sampling=Sampling(max_tokens=1),
        chunk_sizes=(1,),
    )


BEFORE_THE_END = dangling(0xC2, *b"</think>", opened_by="template", single=False)
BEFORE_THE_START = dangling(
    0xC2, SINGLE.THINK, *b"a", SINGLE.END_THINK, opened_by="model", single=True
)


@examples
@given(cases())
@example(BEFORE_THE_END)
@example(BEFORE_THE_START)
def test_the_thought_is_what_the_oracle_says(case: Case) -> None:
    assume(case.plain and not case.reopens)
    expected, life = case.expected(), case.live(case.chunk_sizes)
    if expected is None:
        assert (life.reasoning, life.outcome.thinking_tokens) == ("", 0)
        return
    assert life.outcome.thinking_tokens == len(expected.thinking) <= case.plan.budget
    assert life.reasoning == expected.text
    assert life.outcome.answer_forced == (expected.marker is None)
    assert (life.outcome.end_cause == "natural") == expected.natural
    if expected.marker is None:
        opening = case.says[0][: expected.overhead]
        assert life.prompts[1] == [*PROMPT, *opening, *expected.thinking, *case.close]


@examples
@given(cases())
def test_the_answer_is_what_was_sampled_behind_the_thought(case: Case) -> None:
    assume(case.plain and not case.reopens)
    expected, life = case.expected(), case.live()
    assume(expected is not None)
    assert expected is not None
    outputs = [list(output) for output in life.engine.outputs]
    stops = (EOS, *case.rules.stop_token_ids)
    ids: list[int] = []
    text = "\n\n"
    if expected.marker is not None:
        ids = outputs[0][expected.read :]
        text = "" if expected.marker == "</think>" else expected.marker
        if ids and ids[-1] == EOS:
            ids.pop()
    for output in outputs[1:]:
        ids += output[:-1] if output[-1] in stops else output
    shown = answer_text(text + answered(ids, case.vocabulary), case.rules.stop)
    assert life.content == ("" if life.failure else shown)


@examples
@given(cases())
@example(BEFORE_THE_END)
@example(BEFORE_THE_START)
def test_no_thought_exceeds_its_budget_and_no_completion_its_allowance(case: Case) -> None:
    outcome = case.live(case.chunk_sizes).outcome
    assert outcome.thinking_tokens <= case.plan.budget
    assert outcome.audited_tokens == outcome.thinking_tokens
    assert outcome.completion_tokens <= case.plan.allowance
    closes, rest = divmod(outcome.forced_tokens, len(case.close))
    assert rest == 0
    assert closes == outcome.answer_forced or (closes > 1 and case.reopens)
    assert outcome.answer_forced or outcome.end_cause == "natural" or case.reopens


@examples
@given(cases())
def test_no_answer_is_empty_unless_the_user_or_an_error_says_so(case: Case) -> None:
    life = case.live(case.chunk_sizes)
    if life.failure is not None:
        assert life.content == ""
        return
    if not life.content.strip():
        last = life.engine.outputs[-1]
        text, _ = decode(last, case.vocabulary)
        stopped = any(stop in text for stop in case.rules.stop)
        assert stopped or not set(last).isdisjoint(case.rules.stop_token_ids)


@examples
@given(cases())
def test_a_forced_close_follows_whole_characters_and_no_marker(case: Case) -> None:
    assume(not case.reopens)
    life = case.live(case.chunk_sizes)
    assume(life.outcome.answer_forced)
    before = life.prompts[1][len(PROMPT) : -len(case.close)]
    text, half = decode(before, case.vocabulary)
    assert not half
    assert "</think>" not in text
    assert "<tool_call>" not in text
    assert life.prompts[1][-len(case.close) :] == case.close


@examples
@given(cases())
def test_the_parts_are_what_the_engine_was_asked_and_sampled(case: Case) -> None:
    """With chunks of one token nothing is sampled in vain but what a cut drops."""
    assume(not case.reopens)
    life = case.live()
    outcome, outputs = life.outcome, life.engine.outputs
    appended = len(life.prompts[-1]) - len(PROMPT)
    dropped = 0  # EOS that a request ended with, and that the next one does not go on from
    for number, output in enumerate(outputs[:-1]):
        past_budget = number == 0 and outcome.answer_forced and outcome.end_cause != "natural"
        dropped += output[-1] == EOS and not case.sampling.ignore_eos and not past_budget
    consumed = appended + len(outputs[-1]) + dropped
    if case.opened_by == "model" and not outcome.thinking_tokens and not outcome.forced_tokens:
        assert (
            outcome.completion_tokens <= consumed
        )  # an answer's rules may cut its undecided start
    else:
        assert outcome.completion_tokens == consumed
    assert outcome.retry_tokens <= 1
    for prompt, sampling in life.engine.requests:
        assert len(prompt) - len(PROMPT) + sampling.max_tokens <= case.plan.allowance


@examples
@given(cases())
def test_the_size_of_chunks_changes_nothing(case: Case) -> None:
    one, many = case.live(), case.live(case.chunk_sizes)
    for life in (one, many):
        for name in ("first_token_at", "thought_ended_at", "first_answer_at", "ended_at"):
            setattr(life.outcome, name, None)
    assert one.outcome == many.outcome
    assert (one.reasoning, one.content) == (many.reasoning, many.content)
    assert one.engine.requests == many.engine.requests
    assert (one.failure is None) == (many.failure is None)


@examples
@given(cases())
def test_the_thought_is_shown_before_the_answer(case: Case) -> None:
    assume(not case.reopens)
    kinds = [type(delta) for delta in case.live(case.chunk_sizes).deltas]
    assert kinds == sorted(kinds, key=[ThoughtDelta, AnswerDelta].index)


@examples
@given(cases())
def test_little_is_sampled_in_vain(case: Case) -> None:
    life = case.live(case.chunk_sizes)
    sampled = sum(map(len, life.engine.outputs))
    kept = life.outcome.completion_tokens - life.outcome.forced_tokens
    undecided = len("<tool_call>") + 4  # a marker or a character that a cut had to wait for
    gathered = (max(case.chunk_sizes) - 1) * len(life.engine.outputs)
    assert sampled - kept <= gathered + undecided


class Chopped(ByteVocabulary):
    """Spelt markers, and tokens that begin and end anywhere, in markers and characters too."""

    def __init__(self, text: bytes, cuts: set[int]) -> None:
        super().__init__(single_token_markers=False)
        edges = [0, *sorted(cut for cut in cuts if 0 < cut < len(text)), len(text)]
        self.said = [1000 + at for at in edges[:-1]]
        self._pieces = {1000 + at: text[at:end] for at, end in pairwise(edges)}

    def token_bytes(self, token_id: int) -> bytes:
        return self._pieces.get(token_id) or super().token_bytes(token_id)


@examples
@given(
    before=st.lists(st.one_of(st.sampled_from(TEXTS).map(str.encode), st.binary(max_size=3))),
    marker=st.sampled_from(["</think>", "<tool_call>"]),
    cuts=st.sets(st.integers(1, 40)),
    opened_by=st.sampled_from(OPENERS),
)
@example([b"\xc2"], "</think>", {1}, "template")
@example([b"\xc3\xa9"], "</think>", {1}, "template")  # é ends in the token of the marker's start
@example([], "</think>", {9, 6}, "model")  # <think|><|/think>
def test_tokens_wholly_before_the_marker_are_the_thoughts(
    before: list[bytes], marker: str, cuts: set[int], opened_by: Literal["template", "model"]
) -> None:
    opening = b"<think>" if opened_by == "model" else b""
    thought = b"".join(before)
    assume(marker.encode() not in thought and b"think>" not in thought)
    text = opening + thought + marker.encode() + b"42"
    vocabulary = Chopped(text, cuts)
    life = live(
        script=tokens([*vocabulary.said, EOS]),
        vocabulary=vocabulary,
        form=compiled(SPELT, opened_by),
        plan=plan(100),
    )
    ends = list(accumulate(len(vocabulary.token_bytes(token_id)) for token_id in vocabulary.said))
    overhead = sum(end < len(opening) for end in ends) + 1 if opening else 0
    own = [end for end in ends[overhead:] if end <= len(opening + thought)]
    assert life.outcome.thinking_tokens == life.outcome.audited_tokens == len(own)
    assert life.reasoning == thought.decode(errors="replace").lstrip("\n")
    assert life.content == ("" if marker == "</think>" else marker) + "42"
