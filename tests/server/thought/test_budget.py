import pytest
from hypothesis import given
from hypothesis import strategies as st

from ponder.thought.budget import (
    EFFORT_TOKENS,
    UNLIMITED,
    Ask,
    Limits,
    Plan,
    Source,
    default_grace,
    default_reserve,
    resolve,
)
from ponder.thought.errors import (
    BudgetLeavesNoAnswer,
    ContextLengthExceeded,
    InvalidBudget,
    ReasoningUnsupported,
    ThoughtError,
)

WIDE = Limits(max_model_len=10_000)


def planned(
    ask: Ask, limits: Limits = WIDE, *, prompt: int = 100, close: int = 10, thinks: bool = True
) -> Plan:
    return resolve(ask, limits, prompt_tokens=prompt, close_tokens=close, thinks=thinks)


@pytest.mark.parametrize(
    ("ask", "limits", "budget", "source"),
    [
        (Ask(budget=128), WIDE, 128, "request"),
        (Ask(budget=0), WIDE, 0, "request"),
        (Ask(budget=128, source="effort"), WIDE, 128, "effort"),
        (Ask(), Limits(max_model_len=10_000, default=64), 64, "default"),
        (Ask(), Limits(max_model_len=10_000, default=0), 0, "default"),
        (Ask(thinks=True), Limits(max_model_len=10_000, default=64), 64, "default"),
        (Ask(thinks=True), Limits(max_model_len=10_000, default=0, ceiling=70), 70, "ceiling"),
        (Ask(budget=128), Limits(max_model_len=10_000, default=64), 128, "request"),
        (Ask(budget=UNLIMITED), Limits(max_model_len=10_000, default=64), 9634, "context"),
        (Ask(budget=128), Limits(max_model_len=10_000, ceiling=32), 32, "ceiling"),
        (Ask(), Limits(max_model_len=10_000, default=64, ceiling=32), 32, "ceiling"),
        (Ask(budget=UNLIMITED), Limits(max_model_len=10_000, ceiling=32), 32, "ceiling"),
        (Ask(budget=128), Limits(max_model_len=10_000, ceiling=32, pool=31), 31, "pool"),
        (Ask(), Limits(max_model_len=10_000, default=64, pool=0), 0, "pool"),
        (Ask(min_thinking_tokens=9), Limits(max_model_len=10_000, pool=8), 8, "pool"),
        # 100 - 10 of the close - 25 of the reserve
        (Ask(budget=128, max_completion_tokens=100), WIDE, 65, "max_completion_tokens"),
        (Ask(max_completion_tokens=100, min_answer_tokens=80), WIDE, 10, "max_completion_tokens"),
        # 1000 - 100 of the prompt - 10 - 225
        (Ask(), Limits(max_model_len=1000), 665, "context"),
        (Ask(max_completion_tokens=5000), Limits(max_model_len=1000), 665, "context"),
        (Ask(max_completion_tokens=12), WIDE, 0, "max_completion_tokens"),
        (Ask(), Limits(max_model_len=105), 0, "context"),
    ],
)
def test_the_smallest_candidate_is_the_budget(
    ask: Ask, limits: Limits, budget: int, source: Source
) -> None:
    plan = planned(ask, limits)
    assert (plan.budget, plan.source, plan.requested) == (budget, source, ask.budget)


@pytest.mark.parametrize(
    ("ask", "limits", "source"),
    [
        (Ask(budget=65), Limits(max_model_len=10_000, ceiling=65), "request"),
        (Ask(budget=65, source="effort"), Limits(max_model_len=10_000, ceiling=65), "effort"),
        (Ask(budget=65, max_completion_tokens=100), WIDE, "request"),
        (Ask(), Limits(max_model_len=10_000, default=65, ceiling=65), "default"),
        (Ask(), Limits(max_model_len=10_000, ceiling=65, pool=65), "ceiling"),
        (Ask(max_completion_tokens=100), Limits(max_model_len=10_000, ceiling=65), "ceiling"),
        (Ask(max_completion_tokens=100), Limits(max_model_len=200), "max_completion_tokens"),
    ],
)
def test_a_tie_goes_to_what_the_user_can_see_first(ask: Ask, limits: Limits, source: str) -> None:
    plan = planned(ask, limits)
    assert (plan.budget, plan.source) == (65, source)


def test_the_plan_carries_the_rest_of_what_was_asked() -> None:
    ask = Ask(
        budget=200,
        max_completion_tokens=400,
        min_thinking_tokens=20,
        min_answer_tokens=50,
        max_answer_tokens=70,
        grace_tokens=30,
    )
    assert planned(ask) == Plan(
        requested=200,
        budget=200,
        source="request",
        allowance=400,
        reserve=50,
        grace=30,
        min_thinking=20,
        max_answer=70,
    )


@pytest.mark.parametrize(
    ("allowance", "reserve"), [(1, 1), (4, 1), (5, 2), (1024, 256), (9999, 256)]
)
def test_default_reserve(allowance: int, reserve: int) -> None:
    assert default_reserve(allowance) == reserve


@pytest.mark.parametrize(("budget", "grace"), [(0, 0), (9, 0), (10, 1), (640, 64), (9999, 64)])
def test_default_grace(budget: int, grace: int) -> None:
    assert default_grace(budget) == grace
    assert planned(Ask(budget=budget), Limits(max_model_len=99_999)).grace == grace


def test_grace_and_minimum_lie_inside_the_effective_budget() -> None:
    limits = Limits(max_model_len=10_000, ceiling=16)
    plan = planned(Ask(budget=200, grace_tokens=30, min_thinking_tokens=20), limits)
    assert (plan.grace, plan.min_thinking) == (16, 16)


def test_a_reserve_is_never_nothing() -> None:
    plan = planned(Ask(budget=UNLIMITED, max_completion_tokens=50, min_answer_tokens=0))
    assert (plan.reserve, plan.budget) == (1, 39)


def test_an_effort_is_clamped_where_a_number_would_be_refused() -> None:
    ask = Ask(
        budget=EFFORT_TOKENS["high"],
        source="effort",
        max_completion_tokens=100,
        min_answer_tokens=50,
    )
    assert planned(ask).budget == 40


def test_a_model_that_does_not_think_has_budget_zero() -> None:
    assert planned(Ask(), thinks=False).source == "default"
    plan = planned(Ask(budget=0, source="effort", max_answer_tokens=9), thinks=False)
    assert (plan.budget, plan.source, plan.max_answer) == (0, "effort", 9)
    for wish in (Ask(budget=5, insists=False), Ask(thinks=True, insists=False)):
        assert planned(wish, thinks=False).budget == 0


@pytest.mark.parametrize(
    ("ask", "thinks", "error", "field", "remedy"),
    [
        (Ask(budget=5), False, ReasoningUnsupported, "budget", "leave `budget` out"),
        (Ask(budget=UNLIMITED), False, ReasoningUnsupported, "budget", "set it to 0"),
        (
            Ask(budget=60, min_answer_tokens=40, max_completion_tokens=100),
            True,
            BudgetLeavesNoAnswer,
            "max_completion_tokens",
            "raise it to 110",
        ),
        (
            Ask(min_answer_tokens=40, max_completion_tokens=39),
            True,
            BudgetLeavesNoAnswer,
            "min_answer_tokens",
            "raise `max_completion_tokens`",
        ),
        (
            Ask(min_answer_tokens=9901),
            True,
            ContextLengthExceeded,
            "min_answer_tokens",
            "shorten the `prompt`",
        ),
        (
            Ask(budget=5, min_thinking_tokens=6),
            True,
            InvalidBudget,
            "min_thinking_tokens",
            "lower min_thinking_tokens",
        ),
    ],
)
def test_what_cannot_be_kept_is_refused_with_its_remedy(
    ask: Ask, thinks: bool, error: type[ThoughtError], field: str, remedy: str
) -> None:
    with pytest.raises(error, match=remedy) as caught:
        planned(ask, thinks=thinks)
    assert caught.value.field == field


def test_what_just_fits_is_planned() -> None:
    ask = Ask(budget=50, min_answer_tokens=40, max_completion_tokens=100)
    assert planned(ask).budget == 50
    zero = Ask(budget=0, min_answer_tokens=100, max_completion_tokens=100)
    assert planned(zero).budget == 0


@pytest.mark.parametrize("prompt", [100, 101])
def test_a_prompt_that_fills_the_context_is_refused(prompt: int) -> None:
    with pytest.raises(ContextLengthExceeded, match="shorten the `prompt`"):
        planned(Ask(), Limits(max_model_len=100), prompt=prompt)
    assert planned(Ask(), Limits(max_model_len=100), prompt=99).allowance == 1


maybe = st.none() | st.integers(0, 300)


@given(
    ask=st.builds(
        Ask,
        budget=st.none() | st.integers(-1, 300),
        source=st.sampled_from(["request", "effort"]),
        max_completion_tokens=st.none() | st.integers(1, 300),
        min_thinking_tokens=st.integers(0, 50),
        min_answer_tokens=maybe,
        max_answer_tokens=maybe,
        grace_tokens=maybe,
    ),
    limits=st.builds(
        Limits,
        max_model_len=st.integers(1, 300),
        default=st.integers(-1, 300),
        ceiling=maybe,
        pool=st.none() | st.integers(0, 300),
    ),
    prompt=st.integers(1, 100),
    close=st.integers(1, 40),
    thinks=st.booleans(),
)
def test_every_plan_fits_its_limits(
    ask: Ask, limits: Limits, prompt: int, close: int, thinks: bool
) -> None:
    try:
        plan = planned(ask, limits, prompt=prompt, close=close, thinks=thinks)
    except ThoughtError as error:
        assert error.field
        return
    assert 1 <= plan.reserve <= plan.allowance <= limits.max_model_len - prompt
    assert 0 <= plan.min_thinking <= plan.budget
    assert 0 <= plan.grace <= plan.budget
    assert plan.budget == 0 or plan.budget + close + plan.reserve <= plan.allowance
    if ask.budget not in (None, UNLIMITED):
        assert ask.budget is not None
        assert plan.budget <= ask.budget
    if limits.ceiling is not None:
        assert plan.budget <= limits.ceiling
    if limits.pool is not None:
        assert plan.budget <= limits.pool
