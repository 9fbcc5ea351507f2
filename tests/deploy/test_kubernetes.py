"""Every overlay, rendered by kubectl's own kustomize and checked against published schemas."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from cloudcoil.models.keda.v1alpha1 import ScaledObject
from cloudcoil.models.prometheus_operator.v1 import PodMonitor, PrometheusRule

from ponder.server.settings import Settings

from .conftest import DEPLOY, installed, run

OVERLAYS = ["cpu", "gpu", "fleet"]
VERSIONS = ["1.30", "1.37"]
CUSTOM = {"PodMonitor": PodMonitor, "PrometheusRule": PrometheusRule, "ScaledObject": ScaledObject}
SHUTDOWN_SECONDS = 30  # what vLLM may take to leave after the last answer

Objects = dict[str, dict[str, Any]]


@pytest.fixture(scope="module", params=OVERLAYS)
def objects(request: pytest.FixtureRequest) -> Objects:
    """By kind; each kind is there once."""
    rendered = run(
        installed("kubectl"), "kustomize", DEPLOY / "kubernetes/overlays" / request.param
    )
    found = list(yaml.safe_load_all(rendered))
    by_kind = {item["kind"]: item for item in found}
    assert len(by_kind) == len(found)
    return by_kind


def pod(objects: Objects) -> dict[str, Any]:
    spec: dict[str, Any] = objects["Deployment"]["spec"]["template"]["spec"]
    return spec


def container(objects: Objects) -> dict[str, Any]:
    (only,) = pod(objects)["containers"]
    return dict(only)


@pytest.mark.parametrize("version", VERSIONS)
def test_objects_are_valid(objects: Objects, version: str) -> None:
    """Strictly: a misspelt field is an error. Custom ones against models of their CRDs."""
    for kind, item in objects.items():
        if kind in CUSTOM:
            CUSTOM[kind].model_validate(item)
        else:
            kubernetes_validate.validate(item, version, strict=True)


def test_the_runbooks_address_is_set_in_one_place(tmp_path: Path) -> None:
    shutil.copytree(DEPLOY / "kubernetes", tmp_path / "kubernetes")
    place = tmp_path / "kubernetes" / "monitoring" / "runbook.yaml"
    default = yaml.safe_load(place.read_text())["data"]["url"]
    place.write_text(place.read_text().replace(default, "https://docs.test/runbook.md"))
    rendered = run(installed("kubectl"), "kustomize", tmp_path / "kubernetes/overlays/cpu")
    (rule,) = [item for item in yaml.safe_load_all(rendered) if item["kind"] == "PrometheusRule"]
    alerts = [r for group in rule["spec"]["groups"] for r in group["rules"] if "alert" in r]
    assert alerts
    for alert in alerts:
        link = f"https://docs.test/runbook.md#{alert['alert'].lower()}"
        assert alert["annotations"]["runbook_url"] == link


def test_misspelt_fields_are_found(objects: Objects) -> None:
    objects = yaml.safe_load(yaml.safe_dump(objects))
    objects["Deployment"]["spec"]["replica"] = 1
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(objects["Deployment"], VERSIONS[0], strict=True)
    del objects["PodMonitor"]["spec"]["selector"]
    with pytest.raises(ValueError, match="selector"):
        PodMonitor.model_validate(objects["PodMonitor"])


def test_everything_selects_the_pods(objects: Objects) -> None:
    labels = objects["Deployment"]["spec"]["template"]["metadata"]["labels"]
    name = {"app.kubernetes.io/name": "ponder"}
    assert name.items() <= labels.items()
    assert objects["Deployment"]["spec"]["selector"] == {"matchLabels": name}
    assert objects["Service"]["spec"]["selector"] == name
    assert objects["PodDisruptionBudget"]["spec"]["selector"] == {"matchLabels": name}
    assert objects["NetworkPolicy"]["spec"]["podSelector"] == {"matchLabels": name}
    assert objects["PodMonitor"]["spec"]["selector"] == {"matchLabels": name}
    assert objects["PodMonitor"]["spec"]["jobLabel"] in labels


def test_clients_need_no_label_but_theirs(objects: Objects) -> None:
    """kustomize can add its labels to every selector that it finds, the clients' too."""
    clients, prometheus = objects["NetworkPolicy"]["spec"]["ingress"][0]["from"]
    assert clients["podSelector"] == {"matchLabels": {"ponder-client": "true"}}
    assert "podSelector" not in prometheus


def test_ports_agree(objects: Objects) -> None:
    (port,) = container(objects)["ports"]
    assert port["containerPort"] == Settings.model_fields["port"].default
    probes = ["startupProbe", "readinessProbe", "livenessProbe"]
    used = [container(objects)[probe]["httpGet"]["port"] for probe in probes]
    used += [objects["Service"]["spec"]["ports"][0]["targetPort"]]
    used += [objects["PodMonitor"]["spec"]["podMetricsEndpoints"][0]["port"]]
    used += [objects["NetworkPolicy"]["spec"]["ingress"][0]["ports"][0]["port"]]
    assert set(used) == {port["name"]}


def test_a_rollout_gives_every_request_its_time(objects: Objects) -> None:
    """preStop, then a drain as long as the longest request, then the engine's own end."""
    variables = {item["name"]: item["value"] for item in container(objects)["env"]}
    drain = int(variables["PONDER_DRAIN_TIMEOUT"])
    assert drain >= Settings.model_fields["request_timeout"].default
    sleep = container(objects)["lifecycle"]["preStop"]["sleep"]["seconds"]
    probe = container(objects)["readinessProbe"]
    assert sleep >= probe["periodSeconds"] * probe["failureThreshold"]
    grace = pod(objects)["terminationGracePeriodSeconds"]
    assert grace >= sleep + drain + SHUTDOWN_SECONDS
    assert objects["Deployment"]["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0


def test_a_rollout_is_given_up_no_sooner_than_a_start(objects: Objects) -> None:
    """Where there is one GPU, the new pod waits for the old one, and then loads its model."""
    probe = container(objects)["startupProbe"]
    start = probe["periodSeconds"] * probe["failureThreshold"]
    deadline = objects["Deployment"]["spec"]["progressDeadlineSeconds"]
    assert deadline > pod(objects)["terminationGracePeriodSeconds"] + start


def test_variables_are_settings(objects: Objects) -> None:
    known = {f"PONDER_{name.upper()}" for name in Settings.model_fields}
    assert {item["name"] for item in container(objects)["env"]} <= known


def test_services_set_no_variables(objects: Objects) -> None:
    """Those of a Service `ponder` would be read as settings: PONDER_PORT=tcp://10.0.0.1:80."""
    assert pod(objects)["enableServiceLinks"] is False


def test_traces_may_leave_for_a_collector(objects: Objects) -> None:
    prometheus = objects["NetworkPolicy"]["spec"]["ingress"][0]["from"][1]
    egress = objects["NetworkPolicy"]["spec"]["egress"]
    assert {"to": [prometheus], "ports": [{"port": 4318}]} in egress


def test_pods_run_without_privileges(objects: Objects) -> None:
    assert pod(objects)["securityContext"]["runAsNonRoot"] is True
    assert pod(objects)["automountServiceAccountToken"] is False
    limits = container(objects)["securityContext"]
    assert limits["readOnlyRootFilesystem"] is True
    assert limits["allowPrivilegeEscalation"] is False
    assert limits["capabilities"] == {"drop": ["ALL"]}
    mounts = {mount["name"] for mount in container(objects)["volumeMounts"]}
    assert mounts == {volume["name"] for volume in pod(objects)["volumes"]}


def test_keys_come_from_a_secret_that_is_not_here(objects: Objects) -> None:
    assert container(objects)["envFrom"] == [{"secretRef": {"name": "ponder-keys"}}]
    assert "Secret" not in objects


def test_overlays_differ_where_they_must(objects: Objects, request: pytest.FixtureRequest) -> None:
    overlay = request.node.callspec.params["objects"]
    resources = container(objects)["resources"]
    assert ("nvidia.com/gpu" in resources["limits"]) == (overlay != "cpu")
    assert container(objects)["image"] == f"ponder:{'cpu' if overlay == 'cpu' else 'gpu'}"
    # Who scales sets the replicas; a number in the Deployment would undo it at every apply.
    scaled = "ScaledObject" in objects
    assert scaled == (overlay == "fleet")
    assert not (scaled and "replicas" in objects["Deployment"]["spec"])
