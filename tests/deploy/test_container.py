"""The image and the compose file, by hadolint and by docker compose's own reading of them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import tomllib
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from generators import dashboard

from ponder.server.settings import Settings

from .conftest import DEPLOY, ROOT, installed, run

DOCKERFILE = DEPLOY / "container" / "Dockerfile"
COMPOSE = DEPLOY / "compose"


def composed(*files: str) -> dict[str, Any]:
    chosen = [part for file in files for part in ("-f", str(COMPOSE / file))]
    text = run(installed("docker-compose"), *chosen, "config")
    return dict(yaml.safe_load(text)["services"])


def test_the_dockerfile_has_no_known_flaw(tmp_path: Path) -> None:
    run(installed("hadolint"), DOCKERFILE)
    flawed = tmp_path / "Dockerfile"
    flawed.write_text("FROM python\nRUN cd /tmp\n")
    with pytest.raises(AssertionError, match="DL3003"):
        run(installed("hadolint"), flawed)


def test_the_image_runs_without_rights() -> None:
    lines = DOCKERFILE.read_text().splitlines()
    assert lines.index("USER 10001:10001") < lines.index('ENTRYPOINT ["ponder", "serve"]')
    deployment = (DEPLOY / "kubernetes/base/deployment.yaml").read_text()
    assert "runAsUser: 10001" in deployment
    # What may be written to is a volume, in the cluster too.
    (volumes,) = [line for line in lines if line.startswith("VOLUME")]
    for path in re.findall(r'"(.+?)"', volumes):
        assert f"mountPath: {path}}}" in deployment


def test_the_image_gets_all_that_it_copies() -> None:
    """The ignore file lets through what the COPY lines name, and they name what is there."""
    ignore = DOCKERFILE.with_name("Dockerfile.dockerignore").read_text().splitlines()
    copies = re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE.read_text(), re.MULTILINE)
    for source in " ".join(copies).split():
        assert (ROOT / source).exists()
        assert f"!{source}" in ignore


def test_each_variant_installs_extras_that_exist() -> None:
    script = (DEPLOY / "container/install.sh").read_text()
    installed_extras = [found.split(",") for found in re.findall(r'"\.\[(.+?)\]"', script)]
    assert [extras[0] for extras in installed_extras] == ["cpu", "gpu"]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert {name for extras in installed_extras for name in extras} <= set(
        project["optional-dependencies"]
    )


def test_variables_are_settings() -> None:
    known = {f"PONDER_{name.upper()}" for name in Settings.model_fields}
    assert set(re.findall(r"PONDER_[A-Z_]+", DOCKERFILE.read_text())) <= known
    assert set(composed("compose.yaml")["ponder"]["environment"]) - {"HF_TOKEN"} <= known


def test_a_login_to_the_hub_reaches_whatever_loads_a_model() -> None:
    assert "HF_TOKEN" in composed("compose.yaml")["ponder"]["environment"]
    fleet = composed("compose.yaml", "compose.fleet.yaml")
    for service in ("vllm-1", "vllm-2", "ponder"):
        assert "HF_TOKEN" in fleet[service]["environment"]


@pytest.mark.parametrize(("status", "healthy"), [(200, True), (503, False)])
def test_the_health_check_asks_the_port_that_is_set(status: int, healthy: bool) -> None:
    asked = []

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    found = re.search(r"HEALTHCHECK .*\n +CMD (\[.*\])", DOCKERFILE.read_text())
    assert found is not None
    _, *arguments = json.loads(found[1])
    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        environment = {**os.environ, "PONDER_PORT": str(server.server_port)}
        done = subprocess.run(
            [sys.executable, *arguments], env=environment, capture_output=True, check=False
        )
    assert asked == ["/healthz"]
    assert (done.returncode == 0) is healthy


def test_an_unknown_variant_is_refused(tmp_path: Path) -> None:
    """Before anything is downloaded."""
    script = DEPLOY / "container/install.sh"
    done = subprocess.run(
        ["sh", script, "tpu", tmp_path / "venv"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "cpu or gpu, not tpu" in done.stderr


def test_compose_serves_scrapes_and_shows() -> None:
    services = composed("compose.yaml")
    assert set(services) == {"ponder", "prometheus", "grafana"}
    for name, service in services.items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert [port["host_ip"] for port in service["ports"]] == ["127.0.0.1"], name
        for volume in service["volumes"]:
            assert volume["type"] == "volume" or Path(volume["source"]).exists(), name
    port = services["ponder"]["ports"][0]["target"]
    (target,) = yaml.safe_load((COMPOSE / "targets.yml").read_text())
    assert target["targets"] == [f"ponder:{port}"]
    (source,) = yaml.safe_load(
        (DEPLOY / "grafana/provisioning/datasources/ponder.yaml").read_text()
    )["datasources"]
    assert source["url"] == f"http://prometheus:{services['prometheus']['ports'][0]['target']}"
    (board,) = [v for v in services["grafana"]["volumes"] if v["source"].endswith("ponder.json")]
    (provider,) = yaml.safe_load(
        (DEPLOY / "grafana/provisioning/dashboards/ponder.yaml").read_text()
    )["providers"]
    assert board["target"].startswith(provider["options"]["path"])


def test_the_alerts_of_compose_link_to_a_page_that_is_there() -> None:
    """Prometheus serves the runbook under the address that a browser on this machine has."""
    prometheus = composed("compose.yaml")["prometheus"]
    options = dict(part.split("=", 1) for part in prometheus["command"])
    (mount,) = [v for v in prometheus["volumes"] if v["target"] == "/etc/prometheus"]
    consoles = options["--web.console.templates"].replace(mount["target"], mount["source"])
    assert (Path(consoles) / "runbook.html").exists()
    port = prometheus["ports"][0]["published"]
    assert options["--web.external-url"] == f"http://localhost:{port}"
    assert f"{options['--web.external-url']}/consoles/runbook.html" == dashboard.RUNBOOK


def test_compose_lets_requests_finish() -> None:
    grace = re.fullmatch(r"(\d+)m(\d+)s", composed("compose.yaml")["ponder"]["stop_grace_period"])
    assert grace
    seconds = 60 * int(grace[1]) + int(grace[2])
    assert seconds >= Settings.model_fields["drain_timeout"].default + 30


def test_the_gpu_variant_reserves_gpus() -> None:
    ponder = composed("compose.yaml", "compose.gpu.yaml")["ponder"]
    assert ponder["build"]["args"] == {"BUILD": "gpu"}
    (device,) = ponder["deploy"]["resources"]["reservations"]["devices"]
    assert device["capabilities"] == ["gpu"]
