"""Reports what a demonstration measured: a sentence, a table, and a page that needs no server.

The page shows the alerts and every panel of the Grafana dashboard except a fleet's, by the
dashboard's own queries over the time of the demonstration.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import charts
import httpx
from rich.table import Table

DEPLOY = Path(__file__).resolve().parent
DASHBOARD = DEPLOY / "grafana" / "ponder.json"
FLEET = "Fleet"
"""The dashboard's last row, about engines behind HTTP: a demonstration has none."""
RUNBOOK = DEPLOY / "prometheus" / "consoles" / "runbook.html"
COLOURS = {"green": "#37872d", "red": "#c4162a", "orange": "#e0752d", "blue": "#3d71d9"}
POINTS = 120  # per line
WINDOW_SECONDS = 30  # of a rate
STYLE = """
:root { color-scheme: light dark }
body { font: 15px/1.4 system-ui, sans-serif; max-width: 76rem; margin: 2rem auto; padding: 0 1rem }
h2 { margin-top: 2.5rem } h3 { margin: 0; font-size: 1rem }
.lead { font-size: 1.25rem } p { margin: .2rem 0; } figure p, .number h3 { font-size: .85rem }
.row { display: grid; grid-template-columns: repeat(auto-fill, minmax(30rem, 1fr)); gap: 1.5rem }
.numbers { display: grid; grid-template-columns: repeat(auto-fill, minmax(11rem, 1fr)); gap: 1rem }
.number { border-left: 6px solid; padding: .3rem .8rem; background: #8881 }
.number p { font-size: 1.5rem }
figure { margin: 0 } svg { width: 100% } ul { list-style: none; padding: 0; font-size: .85rem }
ul li { display: inline-block; margin-right: 1rem }
i { display: inline-block; width: .8em; height: .8em; margin-right: .3em }
polyline { fill: none; stroke-width: 1.6 } .grid line { stroke: #8884 }
.grid text { font-size: 11px; fill: currentColor; text-anchor: end; dominant-baseline: middle }
td, th { text-align: right; padding: .2rem .8rem }
td:first-child, th:first-child { text-align: left }
"""

ENDS = ("value", "low", "high")
Savings = dict[str, Any]


def sentence(savings: Savings) -> str:
    """A sentence about tokens and quality together: neither tells anything without the other."""
    tokens, quality = savings["tokens"]["ratio"], savings["quality"]["feedback"]["difference"]
    if tokens is None or quality is None:
        both = (savings["tokens"], savings["quality"]["feedback"])
        needed = max(measure["more_needed"] or 0 for measure in both) or "some"
        return f"Not measured yet: about {needed} more requests are needed (a longer DURATION)."
    more = tuple(100 * (tokens[end] - 1) for end in ENDS)
    right = tuple(100 * quality[end] for end in ENDS)
    took = _either_way(more, "tokens", unit=" %", digits=0)
    cost = _either_way(right, "right answers of 100", digits=1)
    return f"The policy takes {took} at {cost}; both intervals are of 95 %."


def _either_way(estimate: tuple[float, ...], of: str, *, unit: str = "", digits: int) -> str:
    """`20 % fewer tokens (18 to 22 %)`: the interval has the sign of the words."""
    value, low, high = estimate
    word = "more" if value > 0 else "fewer"
    if value <= 0:
        value, low, high = -value, -high, -low
    ends = f"{low:.{digits}f} to {high:.{digits}f}".replace("-", "\N{MINUS SIGN}")
    return f"{value:.{digits}f}{unit} {word} {of} ({ends}{unit})"


def measures(savings: Savings) -> Iterator[list[str]]:
    """A row per measure: its name, both means, their difference and its interval."""
    quality = savings["quality"]
    rows = {"tokens": savings["tokens"], "seconds": savings["seconds"]}
    rows |= {"right answers": quality["feedback"], "forced answers": quality["forced"]}
    for name, measure in rows.items():
        means = [measure[arm]["mean"] for arm in ("policy", "holdout")]
        cells = ["–" if mean is None else f"{mean['value']:.3g}" for mean in means]
        difference = measure["difference"]
        if difference is None:
            cells += ["–", f"{measure['more_needed']} more needed"]
        else:
            ends = f"{difference['low']:+.3g} … {difference['high']:+.3g}"
            cells += [f"{difference['value']:+.3g}", ends]
        yield [name, *cells]


HEADINGS = ("per request", "policy", "holdout", "difference", "95 % interval")


def table(savings: Savings) -> Table:
    """`GET /v1/ponder/savings` for a terminal."""
    made = Table(title=f"Savings: {savings['status']}", title_justify="left")
    for heading in HEADINGS:
        made.add_column(heading, justify="left" if heading == HEADINGS[0] else "right")
    for row in measures(savings):
        made.add_row(*row)
    return made


@dataclass(frozen=True)
class Monitor:
    """A Prometheus, and the period to show, in seconds since 1970."""

    url: str
    start: float
    end: float

    def get(self, path: str, **parameters: Any) -> Any:
        reply = httpx.get(f"{self.url}/api/v1/{path}", params=parameters)
        return reply.raise_for_status().json()["data"]

    def alerts(self) -> dict[str, str]:
        """The state of every alert: inactive, pending or firing."""
        groups = self.get("rules", type="alert")["groups"]
        return {rule["name"]: rule["state"] for group in groups for rule in group["rules"]}

    def asked(self, query: str) -> str:
        """A query of the dashboard with its variables filled in, for all servers."""
        whole = f"{max(WINDOW_SECONDS, round(self.end - self.start))}s"
        window = f"{WINDOW_SECONDS}s"
        filled = query.replace("$__rate_interval", window).replace("$__range", whole)
        return re.sub(r'=~"\$[^"]+"', '=~".*"', filled)

    def last(self, query: str) -> list[float]:
        found = self.get("query", query=self.asked(query), time=self.end)["result"]
        return [float(series["value"][1]) for series in found]

    def lines(self, query: str, legend: str) -> list[charts.Series]:
        step = max(1.0, (self.end - self.start) / POINTS)
        # Steps count from the end, so that the newest value is on the last one.
        start = self.end - (self.end - self.start) // step * step
        found = self.get(
            "query_range", query=self.asked(query), start=start, end=self.end, step=step
        )
        return [
            charts.Series(
                re.sub(r"{{(\w+)}}", lambda label: series["metric"].get(label[1], ""), legend),  # noqa: B023
                [(time, float(value)) for time, value in series["values"]],
            )
            for series in found["result"]
        ]


def panel(monitor: Monitor, shown: dict[str, Any]) -> str:
    """Draw one panel of the dashboard."""
    defaults = shown["fieldConfig"]["defaults"]
    if shown["type"] == "stat":
        values = monitor.last(shown["targets"][0]["expr"])
        if not values:
            return charts.number(shown["title"], defaults["noValue"], "#777777")
        value = values[0]
        words = [mapping["options"] for mapping in defaults.get("mappings", [])]
        named = next((word[f"{value:g}"]["text"] for word in words if f"{value:g}" in word), None)
        steps = defaults["thresholds"]["steps"]
        colour = [s["color"] for s in steps if s["value"] is None or value >= s["value"]][-1]
        text = named or charts.shown(value, defaults["unit"])
        return charts.number(shown["title"], text, COLOURS[colour])
    series = [
        line
        for target in shown["targets"]
        for line in monitor.lines(target["expr"], target["legendFormat"])
    ]
    title, about, unit = shown["title"], shown["description"], defaults["unit"]
    return charts.graph(title, about, series, unit, start=monitor.start, end=monitor.end)


def panels() -> list[dict[str, Any]]:
    """The dashboard's panels and the heads of its rows, without those of a fleet."""
    shown: list[dict[str, Any]] = json.loads(DASHBOARD.read_text())["panels"]
    return shown[: [one["title"] for one in shown].index(FLEET)]


def rows(monitor: Monitor) -> Iterator[str]:
    """Draw the dashboard's rows: numbers and graphs."""
    kinds = {"stat": "numbers", "timeseries": "row"}
    open_ = ""
    for shown in panels():
        if shown["type"] == "row":
            yield f"{open_}<h2>{escape(shown['title'])}</h2>\n"
            open_ = ""
            continue
        if not open_:
            yield f'<div class="{kinds[shown["type"]]}">\n'
            open_ = "</div>\n"
        yield panel(monitor, shown)
    yield open_


def page(savings: Savings, monitor: Monitor, policy: str) -> str:
    """The whole page; it loads nothing."""
    cells = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>"
        for row in measures(savings)
    )
    headings = "".join(f"<th>{heading}</th>" for heading in HEADINGS)
    alerts = "".join(
        f'<tr><td><a href="{RUNBOOK.as_uri()}#{name.lower()}">{escape(name)}</a></td>'
        f"<td>{escape(state)}</td></tr>"
        for name, state in monitor.alerts().items()
    )
    return (
        '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n'
        f"<title>Ponder: a demonstration</title>\n<style>{STYLE}</style>\n"
        f'<h1>Ponder: a demonstration</h1>\n<p class="lead">{escape(sentence(savings))}</p>\n'
        f"<p>{escape(policy)}</p>\n"
        f"<h2>Savings</h2>\n<table><tr>{headings}</tr>{cells}</table>\n"
        f"<h2>Alerts</h2>\n<table>{alerts}</table>\n"
        f"{''.join(rows(monitor))}</html>\n"
    )
