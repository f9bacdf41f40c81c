"""`/metrics`: what is counted, who may read it, and that no client's text becomes a label."""

import asyncio
import shutil
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from bench.ports import free_port
from tests.support.events import EVENTS, SUBSCRIPTIONS, event
from tests.support.processes import EmbeddedTemporalOnly, until
from tests.support.stack import Stack, http_client, make_settings, running_stack, sevenfold, until_ready
from tests.support.streams import read as read_events
from tests.support.streams import started as start_stream
from tests.support.tenants import TenantKey, client_of, key_config

API = "/api/agent"
Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


@pytest.fixture(scope="module")
async def measured(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    config = '[metrics]\ntasks = ["known"]\n[agents.priced]\nkind = "simulator"\nprice = {call = 0.5}\n'
    async with running_stack(tmp_path_factory.mktemp("metrics"), more_config=config) as stack:
        yield stack


async def read(http: httpx.AsyncClient) -> Samples:
    """The samples of a page, by name and labels."""
    answer = await http.get("/metrics")
    assert answer.status_code == 200, answer.text
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in parse_text(answer.text)
        for sample in family.samples
    }


def total(samples: Samples, name: str, **labels: str) -> float:
    """The sum of a metric's samples that have these labels."""
    return sum(value for (one, its), value in samples.items() if one == name and labels.items() <= dict(its).items())


async def test_a_run_is_counted_from_its_request_to_its_end(measured: Stack) -> None:
    before = await read(measured.http)
    for task in ("known", "made-up"):
        body = {"task": task, "agent": "echo"}
        started = await measured.http.post(f"{API}/tasks", json=body)
        await measured.run_until(started.json()["taskId"], "completed")
    assert (await measured.query("x", agent="hopeless")).status_code == 502
    assert (await measured.query("x", agent="flaky")).status_code == 200
    after = await read(measured.http)

    def grew(name: str, **labels: str) -> float:
        return total(after, name, **labels) - total(before, name, **labels)

    for task in ("known", "other"):
        labels = {"pattern": "polling", "agent": "echo", "task": task}
        assert grew("sevenfold_runs_started_total", **labels) == 1
        assert grew("sevenfold_runs_ended_total", **labels, outcome="completed") == 1
    assert grew("sevenfold_runs_ended_total", agent="hopeless", outcome="failed", error="AgentRejected") == 1
    assert grew("sevenfold_run_duration_seconds_count", pattern="polling", outcome="completed") == 2
    assert grew("sevenfold_agent_call_duration_seconds_count", agent="echo", outcome="ok") == 2
    assert grew("sevenfold_agent_call_duration_seconds_count", agent="hopeless", outcome="AgentRejected") == 1
    assert grew("sevenfold_agent_call_duration_seconds_count", agent="flaky", outcome="AgentFailed") == 2
    assert grew("sevenfold_agent_retries_total", agent="flaky", error="AgentFailed") == 2
    assert grew("sevenfold_http_request_duration_seconds_count", route=f"{API}/tasks", status="202") == 2
    assert grew("sevenfold_http_request_duration_seconds_count", route=f"{API}/query", status="502") == 1
    assert total(after, "sevenfold_agent_permits_in_use") == 0
    assert total(after, "temporal_workflow_completed_total") >= 2
    assert total(after, "sevenfold_temporal_up") == 1


async def test_usage_streams_and_items_are_counted(measured: Stack) -> None:
    before = await read(measured.http)
    stream = await start_stream(measured, agent="careful", params={"seconds": 0.2})
    await read_events(measured.http, stream)
    assert (await measured.query("hi", agent="priced")).status_code == 200
    job = {"task": "work", "agent": "item", "data": {"items": [1, 2, 3]}}
    started = await measured.http.post(f"{API}/jobs", json=job)
    await measured.run_until(started.json()["jobId"], "completed")
    after = await read(measured.http)
    for name, labels, expected in (
        ("sevenfold_agent_cost_usd_total", {"agent": "priced"}, 0.5),
        ("sevenfold_agent_first_chunk_seconds_count", {"agent": "careful"}, 1),
        ("sevenfold_job_items_total", {"agent": "item", "outcome": "completed"}, 3),
    ):
        assert total(after, name, **labels) - total(before, name, **labels) == pytest.approx(expected), name
    assert total(after, "sevenfold_stream_sent_bytes_total") > total(before, "sevenfold_stream_sent_bytes_total")
    assert total(after, "sevenfold_stream_readers") == 0


async def test_events_and_their_reactions_are_counted(measured: Stack) -> None:
    rule = {"filter": {"exact": {"type": "t.metric"}}, "agent": "echo", "task": "work"}
    assert (await measured.http.put(f"{SUBSCRIPTIONS}/metric", json=rule)).is_success
    before = await read(measured.http)
    sent = {**event("t.metric"), "time": "2026-01-01T00:00:00Z"}
    for _ in range(2):
        assert (await measured.http.post(EVENTS, json=sent)).is_success

    async def is_counted() -> bool:
        after = await read(measured.http)
        lag = "sevenfold_event_reaction_lag_seconds_sum"
        return (
            all(
                total(after, "sevenfold_events_total", outcome=outcome)
                == total(before, "sevenfold_events_total", outcome=outcome) + 1
                for outcome in ("accepted", "duplicate")
            )
            and total(after, lag) - total(before, lag) > 86_400
        )

    await until(is_counted, 10)
    await measured.http.delete(f"{SUBSCRIPTIONS}/metric")


async def test_no_text_of_a_client_becomes_a_label(measured: Stack) -> None:
    mark = "plantedtext"
    await measured.http.get(f"/{mark}")
    await measured.http.request(mark.upper(), f"{API}/runs")
    await measured.http.get(f"{API}/runs/qry_{mark}")
    await measured.query("hi", agent=mark)
    await measured.http.post(f"{API}/tasks", json={"task": mark, "agent": "echo", "metadata": {mark: mark}})
    await measured.http.post(EVENTS, json={**event(f"t.{mark}"), "source": f"/{mark}"})
    await measured.http.post(EVENTS, json={mark: mark})
    page = (await measured.http.get("/metrics")).text
    assert "sevenfold_http_request" in page
    assert mark not in page.lower()


async def test_both_formats_are_valid(measured: Stack) -> None:
    text = await measured.http.get("/metrics")
    assert text.headers["content-type"].startswith("text/plain; version=")
    opened = await measured.http.get("/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"})
    assert opened.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    families = {family.name: family for family in parse_openmetrics(opened.text)}
    for name in ("sevenfold_http_request_duration_seconds", "temporal_request", "process_resident_memory_bytes"):
        assert families[name].samples, name
    promtool = shutil.which("promtool")
    if promtool is not None:
        checked = await asyncio.to_thread(
            subprocess.run, [promtool, "check", "metrics"], input=text.text, capture_output=True, text=True
        )
        ours = [line for line in checked.stderr.splitlines() if line.startswith("sevenfold_")]
        assert ours == [], checked.stderr


async def test_a_replay_counts_no_run_twice(tmp_path: Path) -> None:
    """Without a cache, each workflow task replays the run from its start."""
    async with running_stack(tmp_path, max_cached_workflows=0, inline_start_seconds=0) as stack:
        before = await read(stack.http)
        assert (await stack.query("hi", agent="flaky")).status_code == 200
        after = await read(stack.http)
        name = "sevenfold_runs_ended_total"
        assert total(after, name, agent="flaky") - total(before, name, agent="flaky") == 1


async def test_metrics_need_their_scope(tmp_path: Path) -> None:
    reader, other = TenantKey("default", ("metrics:read",)), TenantKey("default", ("runs:read", "runs:write"))
    async with (
        running_stack(tmp_path, more_config=key_config(reader, other)) as stack,
        client_of(stack) as anyone,
        client_of(stack, other) as wrong,
        client_of(stack, reader) as right,
    ):
        assert [(await one.get("/metrics")).status_code for one in (anyone, wrong, right)] == [401, 403, 200]


async def test_a_tenants_key_sees_nothing_of_other_tenants(tmp_path: Path) -> None:
    acme, operator = TenantKey("acme"), TenantKey("default", ("metrics:read",))
    config = '[metrics]\ntenants = true\n[tenants.acme]\nagents = ["echo"]\n[tenants.globex]\n'
    globex = TenantKey("globex")
    async with (
        running_stack(tmp_path, more_config=config + key_config(acme, operator, globex)) as stack,
        client_of(stack, acme) as own,
        client_of(stack, globex) as other,
        client_of(stack, operator) as everything,
    ):
        assert (await own.post(f"{API}/query", json={"query": "hi", "agent": "echo"})).status_code == 200
        assert (await other.post(f"{API}/query", json={"query": "hi", "agent": "careful"})).status_code == 200
        page = (await own.get("/metrics")).text
        assert 'tenant="acme"' in page
        assert 'agent="echo"' in page
        for hidden in ("globex", "careful", "via=", "broker="):
            assert hidden not in page, hidden
        assert 'tenant="globex"' in (await everything.get("/metrics")).text


async def test_worker_and_connector_serve_metrics_and_probes(tmp_path: Path) -> None:
    key = TenantKey("default", ("metrics:read",))
    config = f'{key_config(key)}[brokers.main]\nkind = "nats"\nurl = "nats://127.0.0.1:{free_port()}"\n'
    config += '[[brokers.main.publish]]\nto = "out"\nfilter = {prefix = {type = "t."}}\n'
    settings = make_settings(tmp_path, more_config=config)
    async with EmbeddedTemporalOnly(settings) as address:
        for command in ("worker", "connect"):
            port = free_port()
            with sevenfold(command, settings, TEMPORAL_ADDRESS=address, SEVENFOLD_METRICS_PORT=str(port)):
                async with http_client(port) as http:

                    async def is_live(http: httpx.AsyncClient = http) -> bool:
                        try:
                            return (await http.get("/health/live")).status_code == 200
                        except httpx.TransportError:
                            return False

                    await until(is_live, 30)
                    assert (await http.get("/metrics")).status_code == 401
                    assert (await http.post("/metrics")).status_code == 405
                    assert (await http.get("/other")).status_code == 404
                    http.headers.update(key.headers)

                    async def has_worker(http: httpx.AsyncClient = http) -> bool:
                        return total(await read(http), "temporal_worker_start_total") >= 1

                    await until(has_worker, 20)
                    samples = await read(http)
                    shared = {name for name, _ in samples} & {
                        "sevenfold_temporal_up",
                        "sevenfold_webhook_oldest_seconds",
                    }
                    assert shared == set(), "what only an API samples"
                    assert total(samples, "process_resident_memory_bytes") > 1e7
                    if command == "worker":
                        await until_ready(port)
                        continue
                    ready = (await http.get("/health/ready")).json()
                    assert ready["status"] == "degraded"
                    assert ready["brokers"] == "not connected: main; their events wait"
                    assert total(samples, "sevenfold_broker_connected", broker="main") == 0


async def test_half_open_connections_do_not_starve_a_workers_probes(tmp_path: Path) -> None:
    """Each sends a part of a request and waits; they are closed after a while, and probes are answered meanwhile."""
    settings = make_settings(tmp_path)
    async with EmbeddedTemporalOnly(settings) as address:
        port = free_port()
        with sevenfold("worker", settings, TEMPORAL_ADDRESS=address, SEVENFOLD_METRICS_PORT=str(port)):
            await until_ready(port)
            opened = [await asyncio.open_connection("127.0.0.1", port) for _ in range(120)]
            for _, writer in opened:
                writer.write(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n")
            async with http_client(port) as http:
                for _ in range(5):
                    assert (await http.get("/health/live")).status_code == 200
                refused = await http.get("/metrics", headers={"Host": "rebound.example"})
                assert refused.status_code == 421, "a web page's own name"
            async with asyncio.timeout(25):
                for reader, writer in opened:
                    assert await reader.read() == b""
                    writer.close()


async def test_shared_gauges_show_what_waits(tmp_path: Path) -> None:
    """An API without a worker: the queue grows old, and nobody polls."""
    settings = make_settings(tmp_path)
    async with EmbeddedTemporalOnly(settings) as address, http_client(settings.port) as http:
        with sevenfold("api", settings, TEMPORAL_ADDRESS=address):

            async def accepts() -> bool:
                try:
                    body = {"task": "work", "agent": "echo"}
                    return (await http.post(f"{API}/jobs", json=body)).status_code == 202
                except httpx.TransportError:
                    return False

            await until(accepts, 30)
            await asyncio.sleep(2)
            samples = await read(http)
            queue = {"task_queue": f"{settings.task_queue}-batch", "kind": "workflow"}
            assert total(samples, "sevenfold_queue_depth", **queue) == 1
            assert total(samples, "sevenfold_queue_oldest_seconds", **queue) >= 1
            assert total(samples, "sevenfold_queue_pollers") == 0
            assert total(samples, "sevenfold_runs_open", pattern="queue") == 1
