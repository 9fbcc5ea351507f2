"""Writes docs/capacity.md from the simulation's figures alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import fill

from ponder.evaluation.intervals import Estimate
from ponder.evaluation.plots import Curve, draw

from .profiles import Profile
from .scenarios import BASE, ENGINES, SCENARIOS, SEEDS, WITHIN_S, Row
from .validation import Check

Rows = Sequence[Row]


@dataclass(frozen=True, slots=True)
class Section:
    """A scenario on the page: the figures of its table, and the figure of its plot."""

    title: str
    x_label: str
    columns: Sequence[str]
    drawn: str | None = None


NAMES: Mapping[str, str] = {
    "offered_per_s": "requests/s",
    "goodput_per_s": "good answers/s",
    "answered": "answered",
    "refused": "refused",
    "first_answer_p50_s": "p50 (s)",
    "first_answer_p99_s": "p99 (s)",
    "thinking_tokens": "thinking tokens",
    "cut": "cut",
    "most_inside": "most at once",
    "prefilled_per_sampled": "prompt tokens read per token sampled",
    "others_first_answer_p99_s": "others: p99 (s)",
    "others_goodput_per_s": "others: good answers/s",
    "others_thinking_tokens": "others: thinking tokens",
}
SECTIONS: Mapping[str, Section] = {
    "sizing": Section(
        "How many engines",
        "requests a second for each engine",
        ("goodput_per_s", "first_answer_p50_s", "first_answer_p99_s", "thinking_tokens", "cut"),
        "first_answer_p99_s",
    ),
    "pooling": Section(
        "One large fleet or several small ones",
        "engines",
        ("goodput_per_s", "first_answer_p50_s", "first_answer_p99_s"),
    ),
    "affinity": Section(
        "Session affinity",
        "load",
        ("goodput_per_s", "first_answer_p99_s", "prefilled_per_sampled"),
        "goodput_per_s",
    ),
    "overload": Section(
        "More requests than the engines can take",
        "load",
        ("goodput_per_s", "refused", "first_answer_p99_s", "thinking_tokens", "cut"),
        "goodput_per_s",
    ),
    "tenants": Section(
        "One tenant that asks as much as all others",
        "load",
        ("goodput_per_s", "refused", "others_goodput_per_s", "others_first_answer_p99_s",
         "others_thinking_tokens"),
        "others_goodput_per_s",
    ),
    "deadlines": Section(
        "Deadlines under overload",
        "load",
        ("goodput_per_s", "first_answer_p50_s", "first_answer_p99_s", "thinking_tokens", "cut"),
        "first_answer_p99_s",
    ),
    "failures": Section(
        "An engine dies",
        "load",
        ("answered", "goodput_per_s", "first_answer_p99_s"),
    ),
    "large": Section(
        "A hundred thousand thoughts at once",
        "engines",
        ("most_inside", "goodput_per_s", "first_answer_p50_s", "first_answer_p99_s",
         "prefilled_per_sampled"),
    ),
}  # fmt: skip
_DRAWN_S = 160.0
_SHARES = {"answered", "refused", "cut"}


def page(profile: Profile, checks: Sequence[Check], found: Mapping[str, Rows]) -> str:
    """The whole page, without scenarios that were not simulated."""
    parts = [_head(profile, checks, found)]
    for name, rows in found.items():
        section = SECTIONS[name]
        doc = " ".join((SCENARIOS[name].__doc__ or "").split())
        parts.append(f"## {section.title}\n")
        parts.append(_wrapped(f"{doc} {SAYS[name](rows)}") + "\n")
        if section.drawn is not None:
            parts.append(f"![{section.title}](capacity/{name}.png)\n")
        parts.append(_table(section, rows))
    return "\n".join(parts)


def draw_all(found: Mapping[str, Rows], directory: Path) -> None:
    """A plot of each scenario that has one: the mean of the seeds, and their range."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, rows in found.items():
        section = SECTIONS[name]
        if section.drawn is not None:
            label = NAMES[section.drawn].replace("p99", "99th percentile of first answer tokens")
            draw(_curves(section.drawn, rows), directory / name,
                 x_label=section.x_label, y_label=label)  # fmt: skip


def _curves(figure: str, rows: Rows) -> list[Curve]:
    curves = []
    for arm in dict.fromkeys(row.arm for row in rows):
        points = [row for row in rows if row.arm == arm and math.isfinite(row.mean(figure))]
        points = [
            row for row in points if figure != "first_answer_p99_s" or row.mean(figure) <= _DRAWN_S
        ]
        estimates = [Estimate(row.mean(figure), *row.span(figure)) for row in points]
        curves.append(Curve(arm, [row.x for row in points], estimates))
    return curves


def _head(profile: Profile, checks: Sequence[Check], found: Mapping[str, Rows]) -> str:
    lines = "\n".join(
        f"| {one.what} | {one.measured:,.0f} | {one.simulated:,.0f} | {one.error:+.1%} |"
        for one in checks
    )
    full = sum(len(row.seeds) for rows in found.values() for row in rows)
    step, context, prompt = profile.base_s, profile.context_s, profile.prompt_s
    about = (
        f"**Everything below is simulated** (`python -m studies.capacity`, {full} simulations); "
        f"nothing ran on such machines. The engines follow {profile.source}: a step takes "
        f"{1e3 * step:.1f} ms, plus {1e7 * context:.2f} ms for each 10,000 tokens in the cache, "
        f"which holds {profile.cache:,}; a prompt's token takes {1e6 * prompt:.0f} µs. Requests "
        f"come at random. Prompts have {BASE.prompt} tokens in the mean, answers {BASE.answer}; "
        f"thoughts have a median of {BASE.thought:,} tokens and a heavy tail (lognormal, mean 1.65 "
        f"medians, at most {BASE.longest:,}). There are {ENGINES} engines unless a table says "
        f"otherwise, and a load of 1 keeps their caches full. An answer is good if it is complete "
        f"within {WITHIN_S:g} seconds. Each point is the mean of {len(SEEDS)} seeds; plots show "
        f"their range. The simulation does not tell how shorter thoughts change accuracy: read "
        f"that from [your model's curve](howto/calibrating.md)."
    )
    left_out = (
        "The simulation models a step's time, the cache and its limit, preemption, queues and "
        "re-entries. It leaves out the network, the time of Ponder and of the router "
        "([measured](benchmark.md)), and the eviction of a prefix between a cut and its re-entry."
    )
    return f"""# Sizing a fleet

{_wrapped(about)}

## Can it be believed

The simulation against real engines whose figures it was not fitted to, in tokens a second:

| | measured | simulated | error |
|---|---|---|---|
{lines}

{_wrapped(left_out)}
"""


def _wrapped(text: str) -> str:
    return fill(text, 110, break_long_words=False, break_on_hyphens=False)


def _at(rows: Rows, arm: str, x: float) -> Row:
    return next(row for row in rows if row.arm == arm and row.x == x)


def _most_within(rows: Rows, arm: str, seconds: float) -> float:
    fit = [row.x for row in rows if row.arm == arm
           and row.mean("first_answer_p99_s") <= seconds]  # fmt: skip
    return max(fit, default=0.0)


def _sizing(rows: Rows) -> str:
    arms = list(dict.fromkeys(row.arm for row in rows))
    each = "; ".join(f"{_most_within(rows, arm, 30):g} with {arm}" for arm in arms)
    return (
        f"The highest of these rates at which 99 in 100 answers begin within 30 seconds, in "
        f"requests a second for each engine: {each}. The engines that you need are the peak rate / "
        f"that number, and one more in case an engine dies."
    )


def _pooling(rows: Rows) -> str:
    one, many = _at(rows, "load 0.95", 1), _at(rows, "load 0.95", 16)
    return (
        f"At a load of 0.95 the 99th percentile is {one.mean('first_answer_p99_s'):.0f} s with one "
        f"engine, and {many.mean('first_answer_p99_s'):.0f} s with 16 engines that share 16 times "
        f"the requests."
    )


def _affinity(rows: Rows) -> str:
    here, there = _at(rows, "session affinity", 1.0), _at(rows, "none", 1.0)
    read = there.mean("prefilled_per_sampled") / here.mean("prefilled_per_sampled")
    lost = 1 - there.mean("goodput_per_s") / here.mean("goodput_per_s")
    return (
        f"Without affinity a fleet reads {read:.1f} times as many prompt tokens. At a load of 1 "
        f"that costs {lost:.0%} of the good answers, and the 99th percentile goes from "
        f"{here.mean('first_answer_p99_s'):.0f} to {there.mean('first_answer_p99_s'):.0f} s; far "
        f"below the limit it costs little."
    )


def _overload(rows: Rows) -> str:
    good = {arm: _at(rows, arm, 1.3).mean("goodput_per_s")
            for arm in ("nothing", "503 when full", "shed budgets")}  # fmt: skip
    shed = _at(rows, "shed budgets", 1.3)
    full = _at(rows, "503 when full", 1.3)
    shorter = 1 - shed.mean("thinking_tokens") / full.mean("thinking_tokens")
    return (
        f"At a load of 1.3, a server that does nothing gives {good['nothing']:.1f} good answers a "
        f"second. A server that refuses requests when it is full gives {good['503 when full']:.1f} "
        f"and refuses {full.mean('refused'):.0%}. A server that sheds budgets gives "
        f"{good['shed budgets']:.1f} and refuses nobody, with thoughts {shorter:.0%} shorter than "
        f"without shedding."
    )


def _tenants(rows: Rows) -> str:
    plain, pools = (_at(rows, arm, 1.3) for arm in ("503 when full", "pools that shrink"))
    return (
        f"At a load of 1.3 the nineteen others get {plain.mean('others_goodput_per_s'):.1f} good "
        f"answers a second if a full server refuses requests, and "
        f"{pools.mean('others_goodput_per_s'):.1f} if each tenant has a pool. Their thoughts have "
        f"{plain.mean('others_thinking_tokens'):,.0f} and "
        f"{pools.mean('others_thinking_tokens'):,.0f} tokens: the pool shortens the thoughts of "
        f"the tenant that asks too much."
    )


def _deadlines(rows: Rows) -> str:
    low, high = (_at(rows, "deadline 30 s", load) for load in (0.6, 1.3))
    budget = _at(rows, "budget 2,048", 1.3).mean("first_answer_p99_s")
    return (
        f"It holds the 99th percentile at {low.mean('first_answer_p99_s'):.0f} s and "
        f"{high.mean('first_answer_p99_s'):.0f} s at loads of 0.6 and 1.3, and thoughts shrink "
        f"with the load, from {low.mean('thinking_tokens'):,.0f} to "
        f"{high.mean('thinking_tokens'):,.0f} tokens. With a budget of 2,048 the 99th percentile "
        f"at a load of 1.3 is {budget:.0f} s, and the budget cuts as many thoughts when the load "
        f"is low."
    )


def _failures(rows: Rows) -> str:
    again, failed = (_at(rows, arm, 0.8) for arm in ("entered again", "failed"))
    return (
        f"At a load of 0.8, {1 - failed.mean('answered'):.1%} of the requests fail if the dead "
        f"engine's requests fail, and {1 - again.mean('answered'):.1%} if other engines take them "
        f"over; the 99th percentile is {failed.mean('first_answer_p99_s'):.0f} s and "
        f"{again.mean('first_answer_p99_s'):.0f} s. Three engines then carry the load of four."
    )


def _large(rows: Rows) -> str:
    first, other = rows[0], rows[1]
    return (
        f"{first.x:,.0f} engines held up to {first.mean('most_inside'):,.0f} requests at once. "
        f"With affinity they gave {first.mean('goodput_per_s'):,.0f} good answers a second, "
        f"without {other.mean('goodput_per_s'):,.0f}. One seed."
    )


SAYS: Mapping[str, Callable[[Rows], str]] = {
    "sizing": _sizing,
    "pooling": _pooling,
    "affinity": _affinity,
    "overload": _overload,
    "tenants": _tenants,
    "deadlines": _deadlines,
    "failures": _failures,
    "large": _large,
}
"""By scenario: a function from its figures to its sentence on the page."""


def _table(section: Section, rows: Rows) -> str:
    head = ["", section.x_label, *(NAMES[figure] for figure in section.columns)]
    lines = [" | ".join(head), " | ".join(["---"] * len(head))]
    for row in rows:
        cells = [row.arm, f"{row.x:g}", *(_cell(figure, row) for figure in section.columns)]
        lines.append(" | ".join(cells))
    return "\n".join(f"| {line} |" for line in lines) + "\n"


def _cell(figure: str, row: Row) -> str:
    value = row.mean(figure)
    if figure in _SHARES:
        return f"{value:.1%}"
    if not math.isfinite(value):
        return "never"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
