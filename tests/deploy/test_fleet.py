"""The fleet's deployments: schemas where they are published, and names that agree."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fleet
import kubernetes_validate
import pytest
import yaml
from cloudcoil.models.prometheus_operator.v1 import PodMonitor, PrometheusRule
from pydantic import SecretStr

from ponder.server.settings import BUNDLED_MODEL, Settings

from .conftest import DEPLOY, installed, run
from .test_container import COMPOSE, composed

GATEWAY_API = {"InferencePool", "Gateway", "HTTPRoute"}  # no package has their schemas
CUSTOM = {"PodMonitor": PodMonitor, "PrometheusRule": PrometheusRule}
FLAGS = {"--enable-scale-out", "--enable-prompt-tokens-details", "--generation-config=vllm"}


def objects(kubernetes: Path = DEPLOY / "kubernetes") -> dict[tuple[str, str], dict[str, Any]]:
    """By kind and name, each there once."""
    folder = kubernetes / "overlays/routed"
    found = list(yaml.safe_load_all(run(installed("kubectl"), "kustomize", folder)))
    named = {(item["kind"], item["metadata"]["name"]): item for item in found}
    assert len(named) == len(found)
    return named


def containers() -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    for (kind, name), item in objects().items():
        if kind == "Deployment":
            (container,) = item["spec"]["template"]["spec"]["containers"]
            yield name, item, container


@pytest.mark.parametrize("version", ["1.30", "1.37"])
def test_objects_are_valid(version: str) -> None:
    for (kind, _), item in objects().items():
        if kind in CUSTOM:
            CUSTOM[kind].model_validate(item)
        elif kind not in GATEWAY_API:
            kubernetes_validate.validate(item, version, strict=True)


def test_without_its_components_it_needs_no_prometheus_operator(tmp_path: Path) -> None:
    kubernetes = tmp_path / "kubernetes"
    shutil.copytree(DEPLOY / "kubernetes", kubernetes)
    overlay = kubernetes / "overlays/routed/kustomization.yaml"
    lines = overlay.read_text().splitlines(keepends=True)
    overlay.write_text("".join(line for line in lines if not line.startswith("components:")))
    kinds = {kind for kind, _ in objects()} - {kind for kind, _ in objects(kubernetes)}
    assert kinds == set(CUSTOM)


def test_rollouts_are_given_up_no_sooner_than_a_start() -> None:
    """Of Ponder, whose start waits for that of a vLLM server, too."""
    named = {name: (item["spec"], container) for name, item, container in containers()}
    spec, container = named["vllm"]
    probe = container["startupProbe"]
    start = probe["periodSeconds"] * probe["failureThreshold"]
    assert named["ponder"][0]["progressDeadlineSeconds"] > spec["progressDeadlineSeconds"] > start


def test_vllm_takes_the_login_to_the_hub_from_ponders_secret() -> None:
    named = {name: container for name, _, container in containers()}
    (keys,) = [source["secretRef"] for source in named["ponder"]["envFrom"]]
    (login,) = [each for each in named["vllm"]["env"] if each["name"] == "HF_TOKEN"]
    asked = {"name": keys["name"], "key": "HF_TOKEN", "optional": True}
    assert login["valueFrom"] == {"secretKeyRef": asked}


def test_every_request_finds_its_way_to_vllm() -> None:
    named = objects()
    assert {kind for kind, _ in named} >= GATEWAY_API
    ponder, vllm = named["Deployment", "ponder"], named["Deployment", "vllm"]
    variables = {
        item["name"]: item["value"]
        for item in ponder["spec"]["template"]["spec"]["containers"][0]["env"]
    }
    assert variables["PONDER_ENGINE"] == "http"
    gateway = named["Gateway", "inference-gateway"]
    service = f"inference-gateway-{gateway['spec']['gatewayClassName']}"
    assert json.loads(variables["PONDER_ENGINE_OPTIONS"]) == [f"http://{service}"]
    (listener,) = gateway["spec"]["listeners"]
    assert listener["port"] == 80

    route = named["HTTPRoute", "vllm"]["spec"]
    assert [parent["name"] for parent in route["parentRefs"]] == ["inference-gateway"]
    ((backend,),) = [rule["backendRefs"] for rule in route["rules"]]
    pool = named[backend["kind"], backend["name"]]["spec"]
    assert pool["selector"]["matchLabels"] == vllm["spec"]["template"]["metadata"]["labels"]
    (container,) = vllm["spec"]["template"]["spec"]["containers"]
    assert [port["number"] for port in pool["targetPorts"]] == [
        port["containerPort"] for port in container["ports"]
    ]
    picker = pool["endpointPickerRef"]
    served = named[picker["kind"], picker["name"]]["spec"]["ports"]
    assert picker["port"]["number"] in [port["port"] for port in served]
    timeout = float(route["rules"][0]["timeouts"]["request"].removesuffix("s"))
    assert timeout >= Settings.model_fields["request_timeout"].default

    names = named["NetworkPolicy", "ponder-engines"]["spec"]["egress"][0]["to"][0]["podSelector"]
    assert set(names["matchLabels"].values()) == {"inference-gateway"}


def test_the_picker_knows_the_header_that_ponder_sends() -> None:
    maps = [item["data"] for (kind, _), item in objects().items() if kind == "ConfigMap"]
    (config,) = [data["picker-config.yaml"] for data in maps if "picker-config.yaml" in data]
    read = yaml.safe_load(config)
    assert read["apiVersion"] == "llm-d.ai/v1alpha1"
    plugins = {plugin["type"]: plugin.get("parameters") for plugin in read["plugins"]}
    assert plugins["session-affinity-scorer"] == {"strategy": "session_id"}
    (profile,) = read["schedulingProfiles"]
    used = {one["pluginRef"]: one.get("weight", 0) for one in profile["plugins"]}
    assert set(used) < set(plugins)
    assert max(used, key=used.__getitem__) == "session-affinity-scorer"


def test_the_picker_can_be_asked_and_finds_its_pool() -> None:
    """In any namespace, over plain gRPC as Istio speaks it, with a scorer that is alpha."""
    named = objects()
    picker = next(container for name, _, container in containers() if name == "picker")
    image, _, version = picker["image"].rpartition(":")
    assert image.endswith("/llm-d-router-endpoint-picker")
    assert tuple(map(int, version.removeprefix("v").split("."))) >= (0, 10)  # `strategy`
    assert {"--secure-serving=false", "--allow-experimental-plugins"} <= set(picker["args"])
    assert f"--pool-name={named['InferencePool', 'vllm']['metadata']['name']}" in picker["args"]
    (namespace,) = [item for item in picker["env"] if item["name"] == "NAMESPACE"]
    assert namespace["valueFrom"]["fieldRef"]["fieldPath"] == "metadata.namespace"
    allowed = {
        group: rule for rule in named["Role", "picker"]["rules"] for group in rule["apiGroups"]
    }
    assert set(allowed) == {"", "inference.networking.k8s.io", "llm-d.ai"}


def test_servers_are_started_as_ponder_needs_them() -> None:
    """In Kubernetes, in Compose and on this machine alike, with one model everywhere."""
    arguments = {name: container.get("args", []) for name, _, container in containers()}
    assert set(arguments["vllm"]) >= FLAGS
    ponder = next(container for name, _, container in containers() if name == "ponder")
    variables = {item["name"]: item["value"] for item in ponder["env"]}
    assert variables["PONDER_MODEL"] == arguments["vllm"][0]
    services = composed("compose.yaml", "compose.fleet.yaml")
    for name in ("vllm-1", "vllm-2"):
        assert set(services[name]["command"]) >= FLAGS
        assert services[name]["command"][0] == services["ponder"]["environment"]["PONDER_MODEL"]
    here = [str(part) for part in fleet.worker(Path(BUNDLED_MODEL), 1)]
    assert {flag.partition("=")[0] for flag in FLAGS} <= set(here)


def test_compose_asks_the_router_and_watches_the_servers() -> None:
    services = composed("compose.yaml", "compose.fleet.yaml")
    command = services["router"]["command"]
    workers = command[command.index("--worker-urls") + 1 :][:2]
    assert workers == ["http://vllm-1:8000", "http://vllm-2:8000"]
    (port,) = [part.partition("=")[2] for part in command if part.startswith("--port=")]
    environment = services["ponder"]["environment"]
    assert json.loads(environment["PONDER_ENGINE_OPTIONS"]) == [f"http://router:{port}"]
    assert Settings(engine_options=json.loads(environment["PONDER_ENGINE_OPTIONS"])).engine_options
    (watched,) = yaml.safe_load((COMPOSE / "engines.yml").read_text())
    assert watched["targets"] == [url.removeprefix("http://") for url in workers]
    folder, *files = sorted(services["prometheus"]["volumes"], key=lambda it: len(it["target"]))[1:]
    for file in files:  # a mount point in a read-only folder must exist
        assert (Path(folder["source"]) / Path(file["target"]).name).exists()
    devices = [
        services[name]["deploy"]["resources"]["reservations"]["devices"][0]["device_ids"]
        for name in ("vllm-1", "vllm-2")
    ]
    assert devices == [["0"], ["1"]]


def test_ponder_servers_share_a_redis_that_they_may_ask() -> None:
    named = objects()
    service = named["Service", "redis"]
    selected = named["Deployment", "redis"]["spec"]["template"]["metadata"]["labels"]
    assert service["spec"]["selector"] == selected
    container = named["Deployment", "ponder"]["spec"]["template"]["spec"]["containers"][0]
    variables = {item["name"]: item["value"] for item in container["env"]}
    (port,) = [item["port"] for item in service["spec"]["ports"]]
    url = Settings(redis=SecretStr(variables["PONDER_REDIS"])).redis
    assert url is not None
    assert url.get_secret_value() == f"redis://redis:{port}/0"
    egress = named["NetworkPolicy", "ponder-engines"]["spec"]["egress"]
    asked = [rule for rule in egress if rule["to"][0]["podSelector"]["matchLabels"] == selected]
    assert [rule["ports"] for rule in asked] == [[{"port": port}]]
    (source,) = named["NetworkPolicy", "redis"]["spec"]["ingress"][0]["from"]
    labels = named["Deployment", "ponder"]["spec"]["template"]["metadata"]["labels"]
    assert source["podSelector"]["matchLabels"].items() <= labels.items()
    services = composed("compose.yaml", "compose.fleet.yaml")
    assert services["ponder"]["environment"]["PONDER_REDIS"] == f"redis://redis:{port}/0"
    assert "redis" in services


def test_the_local_fleet_has_one_model_whatever_the_environment_names() -> None:
    """PONDER_MODEL, which `ponder chat` reads too, is another server's."""
    command = [str(part) for part in fleet.replica(1, "http://a", "--log-format", "json")]
    assert command[command.index("serve") + 1] == str(BUNDLED_MODEL)


def test_the_policy_is_the_one_that_is_tested() -> None:
    command = [str(part) for part in fleet.router(1, ["http://a"])]
    policy = command[command.index("--policy") + 1]
    composed_router = composed("compose.yaml", "compose.fleet.yaml")["router"]
    assert f"--policy={policy}" in composed_router["command"]
