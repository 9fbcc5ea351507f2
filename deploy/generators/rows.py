"""The dashboard's panels, row by row; deploy/prometheus/savings.yml records the savings."""

from __future__ import annotations

from grafana_foundation_sdk.models.dashboard import Threshold

from ponder.thought.exits.causes import CAUSES

from .fleet import ALERTS, FLEET
from .panels import (
    FROM_ONE,
    JOB,
    MUST_BE_ZERO,
    NEUTRAL,
    SERVERS,
    graph,
    interval,
    number,
    per_second,
    quantiles,
    rate,
)

TOKENS, QUALITY = f'measure="tokens",{JOB}', f'measure="quality",{JOB}'
CLIENTS_FAULT, SERVERS_FAULT = f'status=~"4..",{SERVERS}', f'status=~"5..",{SERVERS}'
UNREACHABLE = f'code="deadline_unreachable",{SERVERS}'
ANSWERED = per_second("ponder_e2e_request_latency_seconds_count")
REFUSED = f"({per_second('ponder_errors_total', labels=CLIENTS_FAULT)} or vector(0))"
FAILED = f"({per_second('ponder_errors_total', labels=SERVERS_FAULT)} or vector(0))"
CUT = per_second("ponder_truncations_total")
NO_THOUGHT = "|".join(cause for cause, info in CAUSES.items() if info.ended_by is None)
THOUGHTS_ENDED = per_second("ponder_requests_total", labels=f'end_cause!~"{NO_THOUGHT}",{SERVERS}')
LEFT = per_second("ponder_pool_left_ratio_sum", "pool")
LENT = per_second("ponder_pool_left_ratio_count", "pool")
TOKENS_UNIT = "suffix: tokens"

AT_A_GLANCE = [
    number("Servers up", "Servers that answer Prometheus.", f"sum(up{{{JOB}}})", "short", FROM_ONE),
    number(
        "Alerts firing",
        "Alerts of these jobs and of a fleet's engines, now. The runbook tells what to do.",
        f"count({ALERTS}) or vector(0)",
        "short",
        MUST_BE_ZERO,
    ),
    number(
        "Requests answered",
        "Requests that got their whole answer, per second.",
        ANSWERED,
        "reqps",
        NEUTRAL,
    ),
    number(
        "Error share",
        "Share of requests that failed with a status of 5xx, among those and the answered ones.",
        f"{FAILED} / ({ANSWERED} + {FAILED} > 0)",
        "percentunit",
        [Threshold(None, "green"), Threshold(0.001, "orange"), Threshold(0.01, "red")],
    ),
    number(
        "Latency p90",
        "Nine requests in ten have their whole answer within this time.",
        quantiles("ponder_e2e_request_latency_seconds")["p90"],
        "s",
        NEUTRAL,
    ),
    number(
        "Choices running",
        "Thoughts and answers being generated now.",
        f"sum(ponder_choices_running{{{SERVERS}}})",
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
        "Quality difference",
        "Mean score of feedback and verifier, policy minus holdout: below 0 the policy costs "
        "quality. Its interval is in the row Savings.",
        f'ponder:savings:difference{{signal=~"feedback|verifier",{QUALITY}}}',
        "percentunit",
        [Threshold(None, "orange"), Threshold(-0.02, "blue")],
    ),
    number(
        "Enough to say so",
        "Yes if both arms have enough conversations for an interval.",
        f"ponder:savings:measured{{{TOKENS}}}",
        "short",
        [Threshold(None, "orange"), Threshold(1, "green")],
        words={"0": "not yet", "1": "yes"},
    ),
    number(
        "Thoughts cut",
        "Share of the thoughts that the server closed.",
        f"{CUT} / ({THOUGHTS_ENDED} > 0)",
        "percentunit",
        [Threshold(None, "green"), Threshold(0.5, "orange")],
    ),
    number(
        "Empty answers",
        "Requests that got no answer although they had room for one, in the time shown. Must be 0.",
        f"sum(increase(ponder_empty_answers_total{{{SERVERS}}}[$__range]))",
        "short",
        MUST_BE_ZERO,
    ),
    number(
        "Budget violations",
        "Thoughts longer than their budget, in the time shown. Must be 0.",
        f"sum(increase(ponder_budget_violations_total{{{SERVERS}}}[$__range]))",
        "short",
        MUST_BE_ZERO,
    ),
]
REQUESTS = [
    graph(
        "Requests per second",
        "Answered; refused with a status of 4xx, for a mistake of the client; failed with 5xx; "
        "left by their client.",
        {
            "answered": ANSWERED,
            "refused": REFUSED,
            "failed": FAILED,
            "client left": per_second("ponder_client_disconnects_total"),
        },
        "reqps",
        stacked=True,
    ),
    graph(
        "Errors",
        "Requests that ended in an error, by its status and code.",
        {
            "{{status}} {{code}}": f"{per_second('ponder_errors_total', 'status, code')} "
            f"and sum by (status, code) (ponder_errors_total{{{SERVERS}}}) > 0"
        },
        "reqps",
    ),
    graph(
        "End-to-end latency",
        "From the request to the last token of its answer, for answered requests.",
        quantiles("ponder_e2e_request_latency_seconds"),
        "s",
    ),
    graph(
        "Time to first token",
        "From the request to the first sampled token: the queue and the prompt.",
        quantiles("ponder_time_to_first_token_seconds"),
        "s",
    ),
    graph(
        "Connections open",
        "Connections of clients, including idle ones.",
        {"open": f"sum(ponder_connections_open{{{SERVERS}}})"},
        "short",
    ),
    graph(
        "Connections ended",
        "Connections that the server ended as too slow, too large or too many; its log says which.",
        {"ended": f"{per_second('ponder_connections_refused_total')} or vector(0)"},
        "suffix: connections/s",
    ),
]
THOUGHTS = [
    graph(
        "Tokens per second",
        "Tokens of thoughts and answers, of closing, retries and probes, and of requests that fail "
        "or whose client leaves.",
        {
            part: per_second(f"ponder_{part}_tokens_total")
            for part in ("thinking", "answer", "forced", "retry", "probe", "unfinished")
        },
        "suffix: tokens/s",
        stacked=True,
    ),
    graph(
        "Thoughts by how they ended",
        "; ".join(f"{cause}: {info.brief}" for cause, info in CAUSES.items()) + ".",
        {"{{end_cause}}": per_second("ponder_requests_total", "end_cause")},
        "suffix: thoughts/s",
        stacked=True,
    ),
    graph(
        "Deadlines",
        "Requests with a deadline: answered in time, answered late, and refused because no answer "
        "could come in time.",
        {
            "in time": per_second("ponder_deadline_total", labels=f'met="true",{SERVERS}'),
            "late": per_second("ponder_deadline_total", labels=f'met="false",{SERVERS}'),
            "refused": f"{per_second('ponder_errors_total', labels=UNREACHABLE)} or vector(0)",
        },
        "suffix: answers/s",
        stacked=True,
    ),
    graph(
        "Repetition",
        "Thoughts that repeated themselves: loops are exact, and the server closes them; near ones "
        "repeat sentences with other numbers, and go on.",
        {
            "loop": per_second("ponder_truncations_total", labels=f'cause="loop",{SERVERS}'),
            "near": per_second("ponder_near_repetitions_total"),
        },
        "suffix: thoughts/s",
    ),
    graph(
        "Early exits that were wrong",
        "Early exits that only watched and could be compared, and those whose answer differed from "
        "the whole thought's.",
        {
            "{{cause}}, compared": per_second("ponder_early_exit_shadow_total", "cause"),
            "{{cause}}, wrong": per_second("ponder_early_exit_disagreement_total", "cause"),
        },
        "suffix: exits/s",
    ),
    graph(
        "Budget used",
        "Thinking tokens over effective budget; at 1 the thought was cut.",
        quantiles("ponder_budget_used_ratio"),
        "percentunit",
    ),
    graph(
        "Thinking tokens per thought",
        "How long thoughts are, cut or not: the basis for a default budget.",
        quantiles("ponder_thinking_tokens"),
        TOKENS_UNIT,
    ),
    graph(
        "Time of thought",
        "From the first sampled token to the end of the thought.",
        quantiles("ponder_thinking_seconds"),
        "s",
    ),
    graph(
        "Time to first answer token",
        "A user's wait, from the request to the first text of the answer.",
        quantiles("ponder_time_to_first_answer_token_seconds"),
        "s",
    ),
]
SHARED = [
    graph(
        "Thoughts by what their pool lent",
        "Requests for thoughts, by the loan from the pool of their tenant or conversation: whole "
        "budgets, less, or nothing.",
        {
            "{{pool}}: {{lent}}": per_second("ponder_pool_requests_total", "pool, lent"),
        },
        "reqps",
        stacked=True,
    ),
    graph(
        "Left in pools",
        "Share of a pool that is left after a request's loan, on average.",
        {"{{pool}}": f"{LEFT} / ({LENT} > 0)"},
        "percentunit",
    ),
    graph(
        "Redis reached, and what servers lend alone",
        "Share of the servers with --redis that reach it, and requests per second to which servers "
        "lent by themselves because they did not reach it.",
        {
            "reached": f"avg(ponder_pool_store_up{{{SERVERS}}})",
            "lent alone": per_second("ponder_pool_lent_alone_total"),
        },
        "short",
    ),
    graph(
        "Load and its level",
        "The highest load of a server (1 is full) and the highest step of shedding: 0 sheds "
        "nothing, 1 to 3 leave ¾, ½ and ¼ of budgets.",
        {
            "load": f"max(ponder_load_ratio{{{SERVERS}}})",
            "level": f"max(ponder_load_level{{{SERVERS}}})",
        },
        "short",
    ),
]
SAVINGS = [
    graph(
        "Tokens per request, by arm",
        "Thinking, forced, answer and retry tokens, since the experiment began.",
        {"{{arm}}": f"ponder:holdout:mean{{{TOKENS}}}"},
        TOKENS_UNIT,
    ),
    graph(
        "Tokens saved per request, with its 95 % interval",
        "Holdout minus policy, counted by conversation. An interval that holds 0 shows no saving.",
        {
            "saved": f"-ponder:savings:difference{{{TOKENS}}}",
            "lower end": f"-ponder:savings:difference_upper{{{TOKENS}}}",
            "upper end": f"-ponder:savings:difference_lower{{{TOKENS}}}",
        },
        TOKENS_UNIT,
    ),
    graph(
        "Quality by arm",
        "Mean scores of feedback and verifier; shares of forced and empty answers.",
        {"{{signal}}, {{arm}}": f"ponder:holdout:mean{{{QUALITY}}}"},
        "percentunit",
    ),
    graph(
        "Quality, policy minus holdout, with its 95 % interval",
        "Below 0 the policy's answers are worse (for feedback and verifier).",
        interval("ponder:savings:difference", QUALITY),
        "percentunit",
    ),
]
ENGINE = [
    graph(
        "Engine load",
        "Requests in vLLM's batch, and those that wait for a place in it.",
        {
            "running": f"sum(vllm:num_requests_running{{{SERVERS}}})",
            "waiting": f"sum(vllm:num_requests_waiting{{{SERVERS}}})",
        },
        "short",
    ),
    graph(
        "Time in the queue",
        "Seconds until the engine begins a request.",
        quantiles("vllm:request_queue_time_seconds"),
        "s",
    ),
    graph(
        "Cache",
        "KV cache in use, and the share of prompt tokens found in the prefix cache.",
        {
            "KV cache in use": f"max(vllm:kv_cache_usage_perc{{{SERVERS}}})",
            "prefix cache hits": f"{per_second('vllm:prefix_cache_hits_total')} / "
            f"{per_second('vllm:prefix_cache_queries_total')}",
        },
        "percentunit",
    ),
    graph(
        "Preemptions",
        "Requests that the engine put back because the KV cache was full.",
        {"preemptions": per_second("vllm:num_preemptions_total")},
        "reqps",
    ),
]
EACH_SERVER = [
    graph(
        "Choices running, by server",
        "Thoughts and answers being generated: unequal lines show an unequal load.",
        {"{{instance}}": f"sum by (instance) (ponder_choices_running{{{SERVERS}}})"},
        "short",
    ),
    graph(
        "Tokens per second, by server",
        "Tokens of thoughts and answers.",
        {
            "{{instance}}": "sum by (instance) ("
            f"{rate('ponder_thinking_tokens_total')} + {rate('ponder_answer_tokens_total')})"
        },
        "suffix: tokens/s",
    ),
    graph(
        "Latency p90, by server",
        "Nine requests in ten have their whole answer within this time.",
        {
            "{{instance}}": "histogram_quantile(0.9, "
            f"{per_second('ponder_e2e_request_latency_seconds_bucket', 'instance, le')})"
        },
        "s",
    ),
    graph(
        "Time since the last token, by server",
        "How long choices have run without a token; an engine that hangs gives none.",
        {"{{instance}}": f"max by (instance) (ponder_engine_silence_seconds{{{SERVERS}}})"},
        "s",
    ),
    graph(
        "Requests waiting, by server",
        "Requests that wait for a place in the engine's batch.",
        {"{{instance}}": f"sum by (instance) (vllm:num_requests_waiting{{{SERVERS}}})"},
        "short",
    ),
    graph(
        "KV cache in use, by server",
        "At 100 % requests are put back and computed again.",
        {"{{instance}}": f"max by (instance) (vllm:kv_cache_usage_perc{{{SERVERS}}})"},
        "percentunit",
    ),
]
ROWS = {
    "At a glance": AT_A_GLANCE,
    "Requests": REQUESTS,
    "Thoughts": THOUGHTS,
    "Pools and load": SHARED,
    "Savings": SAVINGS,
    "Engine": ENGINE,
    "Each server": EACH_SERVER,
    "Fleet": FLEET,
}
