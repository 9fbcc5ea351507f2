"""Generates the Grafana dashboard: its variables, its links and its rows.

`$model` and `$job` choose `$instance` by `ponder_build_info`, the one metric that names the model;
every query then selects instances, which vLLM's metrics name too.
"""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import (
    AnnotationContainer,
    AnnotationQuery,
    DashboardLinkType,
    VariableRefresh,
)

from . import runbook
from .fleet import ALERTS
from .panels import JOB, SOURCE
from .rows import ROWS

# The address at Compose's Prometheus; elsewhere set the dashboard's variable `runbook`.
RUNBOOK = "http://localhost:9090/consoles/runbook.html"

STEP = "60s"


class FiringAlerts(AnnotationQuery):
    """Marks when an alert began to fire.

    The SDK lacks the fields that name a mark, and `target`, from which newer versions of Grafana
    read the query; older ones read `expr`.
    """

    def to_json(self) -> dict[str, object]:
        shown = {"titleFormat": "{{alertname}}", "textFormat": "{{instance}}", "step": STEP}
        target = {"expr": self.expr, "interval": STEP, "refId": "Alerts"}
        return super().to_json() | shown | {"tagKeys": "severity", "target": target}


def chosen(name: str, labels: str) -> dashboard.QueryVariable:
    """A variable with the values of the label `name` on the servers that `labels` select."""
    return (
        dashboard.QueryVariable(name)
        .label(name)
        .datasource(SOURCE)
        .query(f"label_values(ponder_build_info{{{labels}}}, {name})")
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .include_all(True)
        .multi(True)
    )


def link(title: str, url: str) -> dashboard.DashboardLink:
    made = dashboard.DashboardLink(title).type(DashboardLinkType.LINK).url(url)
    return made.icon("doc").target_blank(True)


def render() -> str:
    """The dashboard as JSON for Grafana."""
    model = 'model=~"$model"'
    board = (
        dashboard.Dashboard("Ponder")
        .uid("ponder")
        .tags(["ponder"])
        .refresh("30s")
        .time("now-1h", "now")
        .with_variable(dashboard.DatasourceVariable("source").label("source").type("prometheus"))
        .with_variable(chosen("model", ""))
        .with_variable(chosen("job", model))
        .with_variable(chosen("instance", f"{model},{JOB}"))
        .with_variable(dashboard.TextBoxVariable("runbook").label("runbook").default_value(RUNBOOK))
        .link(link("Runbook", "${runbook:raw}"))
    )
    links: dict[str, list[dashboard.DashboardLink]] = {}
    for alert, section in runbook.sections().items():
        target = link(f"Runbook: {alert}", f"${{runbook:raw}}#{runbook.anchor(alert)}")
        for title in dict.fromkeys(runbook.panels(section)):
            links.setdefault(title, []).append(target)
    for title, panels in ROWS.items():
        board.with_row(dashboard.Row(title))
        for panel in panels:
            board.with_panel(panel)
    built = board.build()
    built.annotations = AnnotationContainer(
        [FiringAlerts("Alerts", SOURCE, icon_color="red", expr=ALERTS)]
    )
    for place, panel in enumerate(built.panels or [], start=1):
        panel.id_val = place
        panel.links = [made.build() for made in links.get(panel.title or "", [])] or None
    return JSONEncoder(sort_keys=True, indent=1).encode(built) + "\n"
