"""Builds the dashboard's panels with Grafana's own SDK.

A query selects servers by the dashboard's variables: `SERVERS` for metrics of one server, `JOB` for
Prometheus' records over all servers of a job.
"""

from __future__ import annotations

from grafana_foundation_sdk.builders import common, dashboard, prometheus, stat, timeseries
from grafana_foundation_sdk.models.common import (
    BigValueColorMode,
    LegendDisplayMode,
    LegendPlacement,
    StackingMode,
    TooltipDisplayMode,
)
from grafana_foundation_sdk.models.dashboard import (
    DataSourceRef,
    Threshold,
    ThresholdsMode,
    ValueMap,
    ValueMappingResult,
)

SOURCE = DataSourceRef("prometheus", "${source}")
JOB = 'job=~"$job"'
SERVERS = f'{JOB},instance=~"$instance"'
Panel = stat.Panel | timeseries.Panel

MUST_BE_ZERO = [Threshold(None, "green"), Threshold(0.1, "red")]
FROM_ONE = [Threshold(None, "red"), Threshold(1, "green")]
NEUTRAL = [Threshold(None, "blue")]


def rate(metric: str, labels: str = SERVERS) -> str:
    return f"rate({metric}{{{labels}}}[$__rate_interval])"


def per_second(metric: str, by: str = "", labels: str = SERVERS) -> str:
    return f"sum{f' by ({by})' if by else ''} ({rate(metric, labels)})"


def quantiles(histogram: str) -> dict[str, str]:
    """Queries for the median, p90 and p99 of a histogram, by legend."""
    buckets = per_second(f"{histogram}_bucket", "le")
    shares = {"p50": 0.5, "p90": 0.9, "p99": 0.99}
    return {name: f"histogram_quantile({share}, {buckets})" for name, share in shares.items()}


def interval(estimate: str, labels: str) -> dict[str, str]:
    """Queries for a recorded estimate and the ends of its 95 % interval, by legend."""
    ends = {"": "", "_lower": " lower end", "_upper": " upper end"}
    return {f"{{{{signal}}}}{end}": f"{estimate}{part}{{{labels}}}" for part, end in ends.items()}


def with_queries(panel: Panel, title: str, text: str, queries: dict[str, str]) -> Panel:
    panel.title(title).description(text).datasource(SOURCE)
    for number, (legend, query) in enumerate(queries.items()):
        panel.with_target(
            prometheus.Dataquery()
            .expr(query)
            .legend_format(legend)
            .ref_id(chr(ord("A") + number))
            .datasource(SOURCE)
        )
    return panel


def number(
    title: str,
    text: str,
    query: str,
    unit: str,
    colours: list[Threshold],
    *,
    words: dict[str, str] | None = None,
) -> Panel:
    """A panel of one value, a sixth of the width, coloured by thresholds; `words` name values."""
    panel = stat.Panel().height(4).span(4).unit(unit).no_value("no data yet")
    panel.color_mode(BigValueColorMode.BACKGROUND_SOLID)
    panel.reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
    panel.thresholds(
        dashboard.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(colours),
    )
    if words:
        named = {
            value: ValueMappingResult(text=word, index=place)
            for place, (value, word) in enumerate(words.items())
        }
        panel.mappings([ValueMap(options=named)])
    return with_queries(panel, title, text, {"": query})


def graph(
    title: str, text: str, queries: dict[str, str], unit: str, *, stacked: bool = False
) -> Panel:
    """A panel of lines over time, half the width."""
    panel = timeseries.Panel().height(8).span(12).unit(unit)
    panel.legend(
        common.VizLegendOptions()
        .display_mode(LegendDisplayMode.LIST)
        .placement(LegendPlacement.BOTTOM)
        .show_legend(True)
    )
    panel.tooltip(common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI))
    if stacked:
        panel.fill_opacity(40).stacking(common.StackingConfig().mode(StackingMode.NORMAL))
    return with_queries(panel, title, text, queries)
