"""Docker, compose, Prometheus, Grafana, workflows and the site: parsed, and held against the package."""

from __future__ import annotations

import json
import re
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from tood.cli import app

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
DOCKER = ROOT / "docker"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]

# Names that `tood serve` has at /metrics, as docs/serving.md lists them; of the process, Prometheus' client's own.
METRICS = {
    "tood_requests_total",
    "tood_request_seconds",
    "tood_refused_total",
    "tood_pictures_total",
    "tood_detections_total",
    "tood_stage_seconds",
    "tood_batch_pictures",
    "tood_queue_pictures",
    "tood_queue_limit",
    "tood_held_bytes",
    "tood_model_loaded_timestamp_seconds",
    "tood_model_reloads_total",
    "process_resident_memory_bytes",
    "process_cpu_seconds_total",
    "up",
}


def load(path: Path) -> Any:
    return yaml.safe_load(path.read_text("utf-8"))


def metrics_of(expression: str) -> set[str]:
    """The metrics in an expression of Prometheus': names before a selector, a range, an operator or the end."""
    bare = re.sub(r"\{[^}]*\}|\[[^]]*\]|\s*by \([^)]*\)\s*", "", expression)
    names = set(re.findall(r"[a-z_]{2,}(?!\w|\()", bare))
    return {re.sub(r"_(bucket|sum|count)$", "", name) for name in names}


def test_dashboard_and_alerts_ask_for_what_the_server_tells() -> None:
    board = json.loads((DOCKER / "grafana" / "dashboards" / "tood.json").read_text("utf-8"))
    source = load(DOCKER / "grafana" / "provisioning" / "datasources" / "prometheus.yml")["datasources"][0]
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"]) >= 10
    expressions = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    for panel in board["panels"]:
        assert panel["datasource"] == {"type": "prometheus", "uid": source["uid"]}
        assert 0 <= panel["gridPos"]["x"] <= 24 - panel["gridPos"]["w"]
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in board["panels"]]
    assert len(set(places)) == len(places)
    alerts = load(DOCKER / "prometheus" / "alerts.yml")["groups"][0]["rules"]
    expressions += [alert["expr"] for alert in alerts]
    asked = set().union(*map(metrics_of, expressions))
    assert asked <= METRICS, asked - METRICS
    assert {name for name in METRICS if name.startswith("tood_")} <= asked


def test_the_server_still_has_these_names() -> None:
    metrics = pytest.importorskip("tood.serving.metrics").Metrics(lambda: 0, 1)
    for counter in (metrics.requests, metrics.refused, metrics.pictures, metrics.detections, metrics.reloads):
        counter.labels(*["x"] * len(counter._labelnames)).inc()
    text = metrics.text().decode()
    told = set(re.findall(r"^# TYPE (\w+)", text, re.MULTILINE))
    assert METRICS - {"up"} <= told


def test_compose_starts_what_there_is() -> None:
    services = load(DOCKER / "compose.yaml")["services"]
    assert set(services) == {"tood", "prometheus", "grafana"}
    assert set(load(DOCKER / "compose.cuda.yaml")["services"]) == {"tood"}
    for file in ("compose.yaml", "compose.cuda.yaml"):
        build = load(DOCKER / file)["services"]["tood"]["build"]
        assert (DOCKER / build["context"] / build["dockerfile"]).is_file()
    for service in services.values():
        assert all(port.startswith("127.0.0.1:") for port in service["ports"])  # nobody's network by default
        for volume in service["volumes"]:
            place = str(volume).partition(":")[0]
            assert not place.startswith("./") or (DOCKER / place).exists(), place
        for name in service.get("depends_on", []):
            assert name in services
    prometheus = load(DOCKER / "prometheus" / "prometheus.yml")
    assert prometheus["scrape_configs"][0]["static_configs"][0]["targets"] == ["tood:8000"]
    assert all((DOCKER / "prometheus" / name).is_file() for name in prometheus["rule_files"])
    board = services["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    mounted = dict(volume.split(":")[:2][::-1] for volume in services["grafana"]["volumes"])
    assert (DOCKER / mounted[str(Path(board).parent)] / Path(board).name).is_file()


def test_nobody_logs_in_to_grafana() -> None:
    """Its own administrator has the password admin, which its API takes where only the form is off."""
    settings = load(DOCKER / "compose.yaml")["services"]["grafana"]["environment"]
    assert settings["GF_SECURITY_DISABLE_INITIAL_ADMIN_CREATION"] == "true"
    assert settings["GF_AUTH_BASIC_ENABLED"] == "false"
    assert settings["GF_AUTH_DISABLE_LOGIN_FORM"] == "true"
    assert (settings["GF_AUTH_ANONYMOUS_ENABLED"], settings["GF_AUTH_ANONYMOUS_ORG_ROLE"]) == ("true", "Viewer")
    assert not [name for name in settings if "PASSWORD" in name]


@pytest.mark.parametrize("name", ["cpu", "cuda"])
def test_docker_files(name: str) -> None:
    text = (DOCKER / f"{name}.Dockerfile").read_text("utf-8").replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    steps = [(line.split()[0], line.split(maxsplit=1)[1]) for line in lines]
    users = [rest for word, rest in steps if word == "USER"]
    assert users == ["10001"]  # not root
    copied = [shlex.split(rest)[:-1] for word, rest in steps if word == "COPY" and not rest.startswith("--from")]
    taken = {file for files in copied for file in files}
    assert all((ROOT / file).exists() for file in taken)
    ignored = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    assert {f"!{file}" for file in taken} <= set(ignored)
    extras = next(rest for word, rest in steps if word == "ARG").partition("=")[2].split(",")
    assert set(extras) <= set(PROJECT["optional-dependencies"])
    assert all("--constraint" in rest for word, rest in steps if "pip install" in rest)
    assert f"docker/{name}.Dockerfile" in text  # how it is built


def test_workflows() -> None:
    folder = ROOT / ".github" / "workflows"
    found = {path.stem: load(path) for path in folder.glob("*.yml")}
    assert set(found) == {"tests", "docs", "release"}
    matrix = found["tests"]["jobs"]["tests"]["strategy"]["matrix"]
    assert {system.partition("-")[0] for system in matrix["os"]} == {"ubuntu", "macos", "windows"}
    classified = {name.rpartition(":: ")[2] for name in PROJECT["classifiers"] if "Python :: 3." in name}
    assert set(matrix["python"]) == classified == {"3.10", "3.11", "3.12", "3.13"}
    publish = found["release"]["jobs"]["publish"]
    assert publish["permissions"] == {"id-token": "write"}  # trusted publishing: no secret is stored anywhere
    assert "secrets." not in (folder / "release.yml").read_text("utf-8")
    for name, workflow in found.items():
        assert workflow["permissions"] in ({}, {"contents": "read"}), name
        for job in workflow["jobs"].values():
            assert job["timeout-minutes"] <= 90
            for step in job["steps"]:
                assert "@" in step.get("uses", "@")


def test_the_site_is_made_of_the_pages_that_there_are() -> None:
    site = load(ROOT / "mkdocs.yml")
    assert "nav" not in site  # a page that somebody adds is in it
    assert site["strict"]
    assert site["theme"]["name"] == "material"
    assert not site["theme"]["font"]  # nothing is fetched from elsewhere
    for page in (ROOT / "docs").rglob("*.md"):
        text = page.read_text("utf-8")
        assert text.startswith("# "), f"{page.name} has no title"
        for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
            assert (page.parent / link).exists(), f"{page.name}: {link}"
            assert ".." not in link, f"{page.name}: {link} is outside of the site"


def test_commands_in_these_files_exist() -> None:
    shown = CliRunner().invoke(app, ["--help"]).output
    assert " doctor " in shown
    assert " predict " in shown
