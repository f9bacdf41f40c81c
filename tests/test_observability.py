"""Alerts, dashboard and manifests: their metrics exist, a real Prometheus scrapes a real gateway, each alert has a
runbook entry, and Kubernetes's schemas accept the manifests.
"""

import asyncio
import json
import re
import shutil
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import kubernetes_validate
import pytest
import yaml

from bench.ports import free_port
from tests.support.processes import until
from tests.support.stack import ROOT, Stack, running_stack
from tests.support.tenants import TenantKey, key_config

FOLDER = ROOT / "docker/observability"
MANIFESTS = sorted((ROOT / "docker/kubernetes").glob("*.yaml"))
RULES = yaml.safe_load((FOLDER / "alerts.yaml").read_text())["groups"][0]["rules"]
DASHBOARD = json.loads((FOLDER / "dashboard.json").read_text())
KEY = TenantKey("default", ("metrics:read", "runs:read", "runs:write"))

# What the SDK shows only after a worker was too slow to take a task at once, or a process has none of it.
_SEEN_LATE = {"temporal_workflow_task_schedule_to_start_latency_seconds_bucket"}

needs_promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="needs promtool")
_METRIC = re.compile(r"\b(?:sevenfold|temporal|process)_[a-z0-9_]+\b")


@pytest.fixture(scope="module")
async def scraped(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    async with running_stack(tmp_path_factory.mktemp("scraped"), more_config=key_config(KEY)) as stack:
        stack.http.headers.update(KEY.headers)
        for agent in ("echo", "flaky"):
            assert (await stack.query("hi", agent=agent)).status_code == 200
        yield stack


def queries(panel: dict[str, Any]) -> list[str]:
    """The queries of a panel and of those within it."""
    own = [target["expr"] for target in panel.get("targets", [])]
    return own + [one for inner in panel.get("panels", []) for one in queries(inner)]


EXPRESSIONS = [rule["expr"] for rule in RULES] + [one for panel in DASHBOARD["panels"] for one in queries(panel)]


@needs_promtool
@pytest.mark.parametrize("arguments", [("check", "rules", "alerts.yaml"), ("test", "rules", "alerts_test.yaml")])
def test_alerts_are_valid_and_fire_and_resolve(arguments: tuple[str, ...]) -> None:
    done = subprocess.run(["promtool", *arguments], cwd=FOLDER, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_is_tested_and_has_its_runbook_entry() -> None:
    tested = re.findall(r"alertname: (\w+)", (FOLDER / "alerts_test.yaml").read_text())
    headings = re.findall(r"(?m)^## (\w+)$", (ROOT / "docs/operations/runbook.md").read_text())
    for rule in RULES:
        assert tested.count(rule["alert"]) >= 2, "it fires, and it resolves"
        assert rule["annotations"]["runbook"] == f"docs/operations/runbook.md#{rule['alert'].lower()}"
        assert rule["labels"]["severity"] in ("page", "ticket")
    assert sorted(headings) == sorted(rule["alert"] for rule in RULES)


async def test_every_metric_of_alerts_and_dashboard_exists(scraped: Stack) -> None:
    page = (await scraped.http.get("/metrics")).text
    shown: set[str] = set()
    for name, kind in re.findall(r"(?m)^# TYPE (\S+) (\S+)$", page):
        shown.add(name)
        if kind == "histogram":
            shown.update(f"{name}_{suffix}" for suffix in ("bucket", "count", "sum"))
    used = {name for one in EXPRESSIONS for name in _METRIC.findall(one)}
    assert len(used) > 50
    assert used - shown - _SEEN_LATE == set()


@needs_promtool
async def test_prometheus_scrapes_a_gateway_and_evaluates_every_query(scraped: Stack, tmp_path: Path) -> None:
    """Debian's Prometheus with our configuration; the addresses alone are this machine's."""
    shutil.copytree(FOLDER, tmp_path / "etc")
    (tmp_path / "etc/metrics.key").write_text(KEY.text)
    config = yaml.safe_load((FOLDER / "prometheus.yml").read_text())
    config["global"].update(scrape_interval="2s", scrape_timeout="2s", evaluation_interval="1s")
    for job in config["scrape_configs"]:
        job["authorization"]["credentials_file"] = str(tmp_path / "etc/metrics.key")
        job.pop("dns_sd_configs", None)
        targets = [f"127.0.0.1:{scraped.settings.port}"] if job["job_name"] == "sevenfold-api" else []
        job["static_configs"] = [{"targets": targets}]
    (tmp_path / "etc/prometheus.yml").write_text(yaml.safe_dump(config))
    port = free_port()
    command = ["prometheus", f"--config.file={tmp_path}/etc/prometheus.yml", f"--storage.tsdb.path={tmp_path}/data"]
    with (tmp_path / "log").open("wb") as log:
        server = await asyncio.create_subprocess_exec(
            *command, f"--web.listen-address=127.0.0.1:{port}", stdout=log, stderr=log
        )
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}/api/v1", timeout=10) as prometheus:

            async def ask(expression: str) -> list[dict[str, Any]]:
                answer = await prometheus.get("query", params={"query": expression})
                assert answer.json()["status"] == "success", (expression, answer.text)
                return list(answer.json()["data"]["result"])

            async def is_scraped() -> bool:
                try:
                    return [one["value"][1] for one in await ask("up")] == ["1"]
                except (httpx.TransportError, ValueError):  # It answers in words until it is ready.
                    return False

            await until(is_scraped, 60)
            for expression in EXPRESSIONS:
                await ask(re.sub(r"\$__rate_interval|\$__range", "1m", expression))
            assert await ask('sevenfold_runs_ended_total{agent="echo", outcome="completed"}')

            async def is_evaluated() -> bool:
                groups = (await prometheus.get("rules")).json()["data"]["groups"]
                return [rule["health"] for rule in groups[0]["rules"]] == ["ok"] * len(RULES)

            await until(is_evaluated, 60)
    finally:
        server.terminate()
        await server.wait()


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
def test_kubernetes_accepts_the_manifests(path: Path) -> None:
    documents = [one for one in yaml.safe_load_all(path.read_text()) if one is not None]
    assert documents
    for document in documents:
        if document["kind"] != "Kustomization":  # It is kubectl's own.
            for version in ("1.30", "1.37"):
                kubernetes_validate.validate(document, version, strict=True)
