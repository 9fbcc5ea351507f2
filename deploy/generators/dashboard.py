"""The Grafana dashboard, built by Grafana's own SDK.

`$job` selects servers by their Prometheus job; what is recorded comes from
deploy/prometheus/savings.yml.
"""

from __future__ import annotations

from grafana_foundation_sdk.builders import common, dashboard, prometheus, stat, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import BigValueColorMode, StackingMode
from grafana_foundation_sdk.models.dashboard import (
    DataSourceRef,
    Threshold,
    ThresholdsMode,
    VariableRefresh,
)

SOURCE = DataSourceRef("prometheus", "${source}")
JOB = 'job=~"$job"'
TOKENS, QUALITY = f'measure="tokens",{JOB}', f'measure="quality",{JOB}'
Panel = stat.Panel | timeseries.Panel


def per_second(metric: str, by: str, labels: str = JOB) -> str:
    return f"sum by ({by}) (rate({metric}{{{labels}}}[$__rate_interval]))"


def quantiles(histogram: str) -> dict[str, str]:
    """The median, the ninth decile and the last percentile, by legend."""
    buckets = per_second(f"{histogram}_bucket", "le")
    shares = {"half": 0.5, "90 %": 0.9, "99 %": 0.99}
    return {name: f"histogram_quantile({share}, {buckets})" for name, share in shares.items()}


def interval(estimate: str, labels: str) -> dict[str, str]:
    """A recorded estimate and the ends of its 95 % interval, by legend."""
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


def number(title: str, text: str, query: str, unit: str, colours: list[Threshold]) -> Panel:
    """One value in a sixth of the width, coloured by its thresholds."""
    panel = stat.Panel().height(4).span(4).unit(unit).no_value("no data yet")
    panel.color_mode(BigValueColorMode.BACKGROUND_SOLID)
    panel.reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
    panel.thresholds(
        dashboard.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(colours),
    )
    return with_queries(panel, title, text, {"": query})


def graph(
    title: str, text: str, queries: dict[str, str], unit: str, *, stacked: bool = False
) -> Panel:
    """Lines over time in half the width."""
    panel = timeseries.Panel().height(8).span(12).unit(unit)
    if stacked:
        panel.fill_opacity(40).stacking(common.StackingConfig().mode(StackingMode.NORMAL))
    return with_queries(panel, title, text, queries)


MUST_BE_ZERO = [Threshold(None, "green"), Threshold(0.1, "red")]
FROM_ONE = [Threshold(None, "red"), Threshold(1, "green")]
NEUTRAL = [Threshold(None, "blue")]

AT_A_GLANCE = [
    number(
        "Empty answers",
        "Requests that went away without an answer, in the time shown. Must be 0.",
        f"sum(increase(ponder_empty_answers_total{{{JOB}}}[$__range]))",
        "short",
        MUST_BE_ZERO,
    ),
    number(
        "Budget violations",
        "Thoughts longer than their budget, in the time shown. Must be 0.",
        f"sum(increase(ponder_budget_violations_total{{{JOB}}}[$__range]))",
        "short",
        MUST_BE_ZERO,
    ),
    number("Servers up", "Servers that answer Prometheus.", f"sum(up{{{JOB}}})", "short", FROM_ONE),
    number(
        "Choices running",
        "Thoughts and answers being generated now.",
        f"sum(ponder_choices_running{{{JOB}}})",
        "short",
        NEUTRAL,
    ),
    number(
        "Tokens saved",
        "Share of the tokens of a request that the policy saves, against the holdout.",
        f"1 - ponder:savings:ratio{{{TOKENS}}}",
        "percentunit",
        NEUTRAL,
    ),
    number(
        "Enough to say so",
        "1 where both arms have the conversations that an interval needs.",
        f"ponder:savings:measured{{{TOKENS}}}",
        "short",
        [Threshold(None, "orange"), Threshold(1, "green")],
    ),
]
THOUGHTS = [
    graph(
        "Tokens per second",
        "What is generated for thoughts and answers, what closing and retries add, and what is "
        "spent on requests that fail or are left.",
        {
            part: f"sum(rate(ponder_{part}_tokens_total{{{JOB}}}[$__rate_interval]))"
            for part in ("thinking", "answer", "forced", "retry", "unfinished")
        },
        "short",
        stacked=True,
    ),
    graph(
        "Thoughts by how they ended",
        "natural: by themselves; budget and length: closed for the model; disabled: not asked for.",
        {"{{end_cause}}": per_second("ponder_requests_total", "end_cause")},
        "reqps",
        stacked=True,
    ),
    graph(
        "Budget used",
        "Thinking tokens over effective budget; at 1 the thought was cut.",
        quantiles("ponder_budget_used_ratio"),
        "percentunit",
    ),
    graph(
        "Thinking tokens per thought",
        "How long thoughts are, cut or not: what a default budget is chosen from.",
        quantiles("ponder_thinking_tokens"),
        "short",
    ),
    graph(
        "Time of thought",
        "From the first sampled token to the end of the thought.",
        quantiles("ponder_thinking_seconds"),
        "s",
    ),
    graph(
        "Time to first answer token",
        "What a user waits for: from the request to the first text of the answer.",
        quantiles("ponder_time_to_first_answer_token_seconds"),
        "s",
    ),
]
SAVINGS = [
    graph(
        "Tokens per request, by arm",
        "Thinking, forced, answer and retry tokens, since the experiment began.",
        {"{{arm}}": f"ponder:holdout:mean{{{TOKENS}}}"},
        "short",
    ),
    graph(
        "Tokens saved per request, with its 95 % interval",
        "Holdout minus policy, counted by conversation. An interval that holds 0 shows no saving.",
        {
            "saved": f"-ponder:savings:difference{{{TOKENS}}}",
            "lower end": f"-ponder:savings:difference_upper{{{TOKENS}}}",
            "upper end": f"-ponder:savings:difference_lower{{{TOKENS}}}",
        },
        "short",
    ),
    graph(
        "Quality by arm",
        "Mean scores of feedback and verifier; shares of forced and empty answers.",
        {"{{signal}}, {{arm}}": f"ponder:holdout:mean{{{QUALITY}}}"},
        "percentunit",
    ),
    graph(
        "Quality, policy minus holdout, with its 95 % interval",
        "Below 0 the policy answers worse (for feedback and verifier).",
        interval("ponder:savings:difference", QUALITY),
        "percentunit",
    ),
]
ENGINE = [
    graph(
        "Engine load",
        "Requests in vLLM's batch, and those that wait for a place in it.",
        {
            "running": f"sum(vllm:num_requests_running{{{JOB}}})",
            "waiting": f"sum(vllm:num_requests_waiting{{{JOB}}})",
        },
        "short",
    ),
    graph(
        "Time in the queue",
        "Seconds until the engine takes a request up.",
        quantiles("vllm:request_queue_time_seconds"),
        "s",
    ),
    graph(
        "Cache",
        "KV cache in use, and the share of prompt tokens found in the prefix cache.",
        {
            "KV cache in use": f"max(vllm:kv_cache_usage_perc{{{JOB}}})",
            "prefix cache hits": per_second("vllm:prefix_cache_hits_total", "job")
            + " / "
            + per_second("vllm:prefix_cache_queries_total", "job"),
        },
        "percentunit",
    ),
    graph(
        "Errors",
        "Requests that ended in an error, by its code, and those whose client left.",
        {
            "{{code}}": per_second("ponder_errors_total", "code"),
            "client left": f"sum(rate(ponder_client_disconnects_total{{{JOB}}}[$__rate_interval]))",
        },
        "reqps",
    ),
]
ROWS = {
    "At a glance": AT_A_GLANCE,
    "Thoughts": THOUGHTS,
    "Savings": SAVINGS,
    "Engine": ENGINE,
}


def render() -> str:
    """The dashboard as Grafana reads it."""
    board = (
        dashboard.Dashboard("Ponder")
        .uid("ponder")
        .tags(["ponder"])
        .refresh("30s")
        .time("now-1h", "now")
        .with_variable(dashboard.DatasourceVariable("source").label("source").type("prometheus"))
        .with_variable(
            dashboard.QueryVariable("job")
            .label("job")
            .datasource(SOURCE)
            .query("label_values(ponder_build_info, job)")
            .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
            .include_all(True)
            .multi(True)
        )
    )
    for title, panels in ROWS.items():
        board.with_row(dashboard.Row(title))
        for panel in panels:
            board.with_panel(panel)
    built = board.build()
    for place, built_panel in enumerate(built.panels or [], start=1):
        built_panel.id_val = place
    return JSONEncoder(sort_keys=True, indent=1).encode(built) + "\n"
