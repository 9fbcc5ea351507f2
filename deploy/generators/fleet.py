"""The dashboard's row about the inference servers that Ponder asks over HTTP.

Prometheus scrapes them as a job of their own (deploy/prometheus/prometheus.yml).
"""

from __future__ import annotations

from .panels import graph, per_second

ENGINES = 'job="ponder-engines"'
ALERTS = 'ALERTS{alertstate="firing",job=~"$job|ponder-engines"}'
"""The alerts of the chosen jobs that fire, and those of engines."""

FLEET = [
    graph(
        "Resumed engine requests",
        "Engine requests that another server resumed, by cause: the first server was lost, failed "
        "or refused the request because its queue was full.",
        {"{{cause}}": per_second("ponder_engine_resumes_total", "cause")},
        "reqps",
    ),
    graph(
        "Running, by engine",
        "Requests in the batch of each inference server, and those that wait for a place in it.",
        {
            "{{instance}}, running": f"sum by (instance) (vllm:num_requests_running{{{ENGINES}}})",
            "{{instance}}, waiting": f"sum by (instance) (vllm:num_requests_waiting{{{ENGINES}}})",
        },
        "short",
    ),
    graph(
        "Time in the queue, by engine",
        "Nine requests in ten begin within this time.",
        {
            "{{instance}}": "histogram_quantile(0.9, "
            f"{per_second('vllm:request_queue_time_seconds_bucket', 'instance, le', ENGINES)})"
        },
        "s",
    ),
    graph(
        "KV cache in use, by engine",
        "At 100 % requests are put back and computed again.",
        {"{{instance}}": f"max by (instance) (vllm:kv_cache_usage_perc{{{ENGINES}}})"},
        "percentunit",
    ),
    graph(
        "Prefix cache hits, by engine",
        "Share of the prompt tokens that were in the cache: it falls if a thought's requests go to "
        "several servers.",
        {
            "{{instance}}": f"{per_second('vllm:prefix_cache_hits_total', 'instance', ENGINES)} / "
            f"{per_second('vllm:prefix_cache_queries_total', 'instance', ENGINES)}"
        },
        "percentunit",
    ),
]
