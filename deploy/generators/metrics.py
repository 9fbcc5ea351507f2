"""Generates the reference of the metrics from what servers export.

Each server is `ponder serve`'s own, with one option more, on an engine that plays a script.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import NamedTuple

import httpx
import yaml
from prometheus_client import REGISTRY, generate_latest
from prometheus_client.parser import text_string_to_metric_families

import ponder.engine.http  # noqa: F401 - which exports metrics of its own
from ponder.engine.scripted import ScriptedEngine, say
from ponder.engine.tokenizer import ModelFiles
from ponder.server.app import create_app
from ponder.server.listener import Listener
from ponder.server.model import ServedModel
from ponder.server.observers.verifier import Verifier
from ponder.server.savings import open_ledger
from ponder.server.service import Service
from ponder.server.settings import BUNDLED_MODEL, Settings
from ponder.server.shared.link import Link

from . import dashboard, runbook

DEPLOY = Path(__file__).resolve().parents[1]
RULES = DEPLOY / "prometheus"
SCALER = "kubernetes/overlays/fleet/scaledobject.yaml"
WORDS = Path(__file__).with_suffix(".md")
ALWAYS = {"state": ":memory:", "holdout": 0.5, "holdout_key": "a key for the page", "api_key": []}
OPTIONS: dict[str, dict[str, object]] = {
    "--pool": {"pool": ["tenant=1000000/1h", "conversation=1000000/1h"]},
    "--redis": {"redis": "redis://127.0.0.1:1/0"},  # nobody listens there
    "--shed-load": {"shed_load": "all"},
    "--verifier": {"verifier": "of:this_page"},
}
"""The options with which a server exports more than without."""
CONVERSATIONS = 8  # enough for both arms
LABELS = {
    "arm": "the arm of the request's conversation in [the holdout](howto/reading-the-savings.md)",
    "cause": "why the server closed a thought, or why another server continued a request",
    "end_cause": "[how the thought ended](replies.md#end_cause)",
    "lent": "how much of a request's budget the pool lent",
    "met": "whether the answer came before its deadline",
    "method": "[the strategy](howto/strategies.md)",
    "pool": "whose [pool](howto/ending-thoughts.md#by-what-a-pool-has-left)",
    "reason": "why the server ended the connection, or why the verifier failed",
    "signal": "what judges or describes the answers",
}
"""The labels whose values Ponder names."""
OPEN_LABELS = {
    "code": "[the error's code](errors.md)",
    "experiment": "the name of the experiment, another one for other settings",
    "model": "the name of the served model",
    "status": "the error's HTTP status",
    "version": "Ponder's version",
}
TABLE = "| metric | type | labels | meaning | used by |\n|---|---|---|---|---|\n"
SUFFIXES = ("", "_bucket", "_sum", "_count")


@dataclass
class Family:
    """A metric, with the values of its labels; `buckets` are the bounds of a histogram."""

    name: str
    kind: str
    text: str
    labels: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    buckets: set[float] = field(default_factory=set)

    @property
    def queried(self) -> set[str]:
        """The names that it has in queries."""
        return {self.name + suffix for suffix in SUFFIXES}


Families = dict[str, Family]


class Content(Verifier):
    """Scores every answer with 1, in this process."""

    def __init__(self) -> None:
        pass

    async def score(self, messages: object, answer: str, *, awaited: bool = False) -> float:
        return 1.0


def families(text: str) -> Families:
    """Ponder's metrics in Prometheus' text format, in its order."""
    found: Families = {}
    for one in text_string_to_metric_families(text):
        if not one.name.startswith("ponder_"):
            continue
        name = one.name + ("_total" if one.type == "counter" else "")
        family = found.setdefault(name, Family(name, one.type, one.documentation))
        for sample in one.samples:
            for label, value in sample.labels.items():
                if label == "le":
                    family.buckets.add(float(value))
                else:
                    family.labels[label].add(value)
    return found


def exported(**options: object) -> Families:
    """What a server exports that has answered, refused and been rated, and is over."""
    settings = Settings(**ALWAYS, **options)  # type: ignore[arg-type]
    model = ServedModel.load(ModelFiles.find(BUNDLED_MODEL), settings)
    script = say("2 + 2 = 4.</think>4", vocabulary=model.tokenizer)
    engine = ScriptedEngine(script, model.tokenizer)
    ledger = open_ledger(settings, model)
    verifier = Content() if settings.verifier else None
    link = Link(settings.redis.get_secret_value()) if settings.redis else None
    service = Service(settings, model, engine, ledger, verifier=verifier, link=link)
    Listener(service)
    text = asyncio.run(_asked(service))
    ledger.close()
    return families(text)


async def _asked(service: Service) -> str:
    transport = httpx.ASGITransport(create_app(service))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        question = {"messages": [{"role": "user", "content": "2 + 2"}]}
        for user in range(CONVERSATIONS):
            body = {**question, "user": f"user {user}"}
            reply = await client.post("/v1/chat/completions", json=body)
            name = reply.raise_for_status().json()["id"]
            rated = await client.post(f"/v1/ponder/{name}/feedback", json={"score": 1})
            rated.raise_for_status()
        await client.post("/v1/chat/completions", json={})
        await service.drain(asyncio.Event())
        return (await client.get("/metrics")).text


def sections() -> dict[str, Families]:
    """The metrics by what a server needs to export them; each is in one section."""
    base = exported()
    engine = families(generate_latest(REGISTRY).decode())  # now without times of creation
    more = {option: exported(**given) for option, given in OPTIONS.items()}
    for name, family in base.items():
        for other in more.values():
            for label, values in other[name].labels.items():
                family.labels[label] |= values
    found = {"Of every server": {k: v for k, v in base.items() if k not in engine}}
    for option, all_ in more.items():
        found[f"With `{option}`"] = {k: v for k, v in all_.items() if k not in base}
    return found | {"With `--engine http`": engine}


class Asker(NamedTuple):
    """What asks for metrics: its kind, its name or a link to it, and its query."""

    kind: str
    shown: str
    query: str

    def names(self, metric: str) -> bool:
        """Whether the query names a metric, or has a pattern for its name."""
        patterns = re.findall(r'__name__=~"(.+?)"', self.query)
        return metric in re.findall(r"[\w:]+", self.query) or any(
            re.fullmatch(pattern, metric) for pattern in patterns
        )


def rules(file: str, kind: str) -> Iterator[tuple[str, str]]:
    """The names of a file's rules, and their expressions."""
    for group in yaml.safe_load((RULES / file).read_text(encoding="utf-8"))["groups"]:
        yield from ((rule[kind], rule["expr"]) for rule in group["rules"])


@cache
def askers() -> tuple[Asker, ...]:
    """The alerts with their sections of the runbook, panels, variables, records, the autoscaler."""
    about, board = runbook.sections(), json.loads(dashboard.render())
    return (
        *(
            Asker("alert", f"[{name}](runbook.md#{runbook.anchor(name)})", f"{expr} {about[name]}")
            for name, expr in rules("alerts.yml", "alert")
        ),
        *(
            Asker("panel", f"*{panel['title']}*", target["expr"])
            for panel in board["panels"]
            for target in panel.get("targets", [])
        ),
        *(
            Asker("variable", f"`${variable['name']}`", str(variable.get("query")))
            for variable in board["templating"]["list"]
        ),
        *(Asker("record", f"`{name}`", expr) for name, expr in rules("savings.yml", "record")),
        Asker("autoscaler", f"[KEDA](../deploy/{SCALER})", (DEPLOY / SCALER).read_text()),
    )


def users(names: Iterable[str]) -> str:
    """What asks for one of these names: `alert A; panels B, C`."""
    wanted = set(names)
    found: dict[str, list[str]] = defaultdict(list)
    for asker in askers():
        if asker.shown not in found[asker.kind] and any(map(asker.names, wanted)):
            found[asker.kind].append(asker.shown)
    return "; ".join(
        f"{kind}{'s' if len(shown) > 1 else ''} {', '.join(shown)}"
        for kind, shown in found.items()
        if shown
    )


def listed(values: Iterable[str]) -> str:
    return ", ".join(f"`{value}`" for value in sorted(values))


def row(family: Family, shared: dict[str, set[str]]) -> str:
    """A row of the table; labels in `shared` have the same values in all metrics."""
    kind = family.kind
    if family.buckets:
        bounds = sorted(family.buckets)
        kind += f", {bounds[0]:g} to {bounds[-2]:,g}"  # the last one is infinite
    labels = ", ".join(
        f"`{label}`"
        + ("" if label in shared or label in OPEN_LABELS else f" ({listed(family.labels[label])})")
        for label in sorted(family.labels)
    )
    return line(f"`{family.name}`", kind, labels, family.text, users(family.queried))


def line(*cells: str) -> str:
    return "|" + "".join(f" {cell} |" if cell else " |" for cell in cells) + "\n"


def render() -> str:
    """The page. Raises `KeyError` for a label without a description."""
    found = sections()
    values: dict[str, list[set[str]]] = defaultdict(list)
    for part in found.values():
        for family in part.values():
            for label, named in family.labels.items():
                values[label].append(named)
    shared = {
        label: named[0]
        for label, named in values.items()
        if label not in OPEN_LABELS and all(one == named[0] for one in named)
    }
    text = WORDS.read_text(encoding="utf-8")
    for title, part in found.items():
        text += f"\n## {title}\n\n{TABLE}" + "".join(row(one, shared) for one in part.values())
    text += "\n## Labels\n\n| label | values | is |\n|---|---|---|\n"
    for label in sorted(values):
        if label in OPEN_LABELS:
            text += line(f"`{label}`", "any", OPEN_LABELS[label])
        else:
            said = listed(shared[label]) if label in shared else "beside the metric"
            text += line(f"`{label}`", said, LABELS[label])
    vllm = {name for asker in askers() for name in re.findall(r"vllm:\w+", asker.query)}
    text += "\n## vLLM's, as far as they are used\n\n| metric | used by |\n|---|---|\n"
    text += "".join(line(f"`{name}`", users([name])) for name in sorted(vllm))
    text += "\n## Records\n\n| record | used by |\n|---|---|\n"
    records = [name for name, _ in rules("savings.yml", "record")]
    return text + "".join(line(f"`{name}`", users([name])) for name in records)
