"""Traces by OTLP: one per request, over processes, retries and events. A real receiver takes them."""

import asyncio
import json
import time
from collections import Counter
from pathlib import Path

import httpx
import pytest
from temporalio.client import Client
from temporalio.worker import Worker

from bench.ports import free_port
from sevenfold.contracts.tracing import TraceContext, run_context
from sevenfold.runtime.config.settings import Settings
from tests.support.child_workflows import Child
from tests.support.events import EVENTS, SUBSCRIPTIONS, event
from tests.support.otlp import ReceivedSpan, check_connected, received_spans
from tests.support.processes import EmbeddedTemporalOnly, has_status, until
from tests.support.receivers import Receiver, running_receiver, simple
from tests.support.redis_server import RedisServer
from tests.support.stack import http_client, make_settings, sevenfold, until_ready

API = "/api/agent"
TRACE = "0af7651916cd43dd8448eb211c80319c"
CLIENT = f"00-{TRACE}-b7ad6b7169203331-01"
SECRET = "0123456789abcdef0123456789abcdef"


def exported_to(receiver: Receiver, **more: str) -> dict[str, str]:
    """The variables of a process that exports its traces at once."""
    return {
        "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url("").rstrip("/"),
        "OTEL_BSP_SCHEDULE_DELAY": "100",
        **more,
    }


async def until_spans(receiver: Receiver, trace_id: str, *names: str, seconds: float = 15) -> list[ReceivedSpan]:
    """Waits until the trace has spans of these names."""

    def missing() -> Counter[str]:
        return Counter(names) - Counter(span.name for span in received_spans(receiver, trace_id))

    try:
        await until(lambda: not missing(), seconds)
    except TimeoutError:
        pytest.fail(f"missing: {missing()} of {[span.name for span in received_spans(receiver, trace_id)]}")
    spans = received_spans(receiver, trace_id)
    assert sorted(span.name for span in spans) == sorted(names)
    return spans


def http_agent(url: str) -> str:
    return f'[agents.remote]\nkind = "http"\nurl = "{url}"\n'


async def traced(http: httpx.AsyncClient, path: str, body: object) -> httpx.Response:
    return await http.post(f"{API}/{path}", json=body, headers={"traceparent": CLIENT})


async def test_a_query_is_one_trace_down_to_the_agents_own_request(tmp_path: Path) -> None:
    async with running_receiver() as collector, running_receiver([simple(503), simple(200, body=b'"fine"')]) as agent:
        settings = make_settings(tmp_path, more_config=http_agent(agent.url("/answer")))
        with sevenfold("dev", settings, **exported_to(collector)) as process:
            await until_ready(settings.port, process=process)
            async with http_client(settings.port) as http:
                answer = await traced(http, "query", {"query": "a secret", "agent": "remote"})
                assert answer.status_code == 200, answer.text
                own = TraceContext.parse(answer.headers["traceresponse"])
                assert own is not None
                assert (own.trace_id, own.is_sampled) == (TRACE, True)
                run = (await http.get(f"{API}/runs/{answer.json()['queryId']}")).json()
                assert run["traceId"] == TRACE
                spans = await until_spans(
                    collector,
                    TRACE,
                    f"POST {API}/query",
                    "run synchronous",
                    *("invoke_agent remote", "POST") * 2,
                )
                # Without a sampled flag nothing is recorded, and probes never are.
                unsampled = {"traceparent": f"00-{'1' * 32}-{'2' * 16}-00"}
                await http.post(f"{API}/query", json={"query": "hi", "agent": "echo"}, headers=unsampled)
                await http.get("/health/live")
                assert (await http.post(f"{API}/query", json={"query": "x", "agent": "echo"})).status_code == 200
        check_connected(spans)
        by_name = {span.name: span for span in spans}
        request = by_name[f"POST {API}/query"]
        assert (request.parent_id, request.span_id) == ("b7ad6b7169203331", own.span_id)
        assert request.attributes["http.response.status_code"] == 200
        assert by_name["run synchronous"].parent_id == request.span_id
        calls = [span for span in spans if span.name == "invoke_agent remote"]
        assert {call.parent_id for call in calls} == {by_name["run synchronous"].span_id}
        assert [(call.attributes["sevenfold.attempt"], call.failed) for call in calls] == [(1, True), (2, False)]
        assert calls[0].attributes["gen_ai.operation.name"] == "invoke_agent"
        assert calls[0].attributes["error.type"] == "AgentUnavailable"
        # The agent's server gets the context of its own request.
        exchanges = {span.span_id: span for span in spans if span.name == "POST"}
        for post in agent.at("/answer"):
            context = TraceContext.parse(post.headers["traceparent"])
            assert context is not None
            assert context.trace_id == TRACE
            assert exchanges[context.span_id].parent_id in {call.span_id for call in calls}
        everything = received_spans(collector)
        assert not any(span.trace_id == "1" * 32 for span in everything)
        assert not any("health" in span.name for span in everything)
        assert not any(b"a secret" in post.body for post in collector.at("/v1/traces"))


async def test_content_is_recorded_only_when_asked_for(tmp_path: Path) -> None:
    async with running_receiver() as collector:
        settings = make_settings(tmp_path)
        asked = {"OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT": "true"}
        with sevenfold("dev", settings, **exported_to(collector, **asked)):
            await until_ready(settings.port)
            async with http_client(settings.port) as http:
                await traced(http, "query", {"query": "what I asked", "agent": "echo"})
                spans = await until_spans(
                    collector, TRACE, f"POST {API}/query", "run synchronous", "invoke_agent echo"
                )
    (call,) = [span for span in spans if span.name == "invoke_agent echo"]
    assert call.attributes["gen_ai.input.messages"] == "what I asked"
    assert call.attributes["gen_ai.output.messages"] == "what I asked"


async def test_a_parked_call_is_one_span_and_a_webhook_has_one_per_attempt(tmp_path: Path) -> None:
    async with running_receiver() as collector, running_receiver([simple(500), simple(200)]) as receiver:
        settings = make_settings(tmp_path)
        with sevenfold("dev", settings, **exported_to(collector)):
            await until_ready(settings.port)
            async with http_client(settings.port) as http:
                webhook = {"webhookUrl": receiver.url("/hook"), "webhookSecret": SECRET}
                body = {"query": "hi", "agent": "careful", "params": {"seconds": 2}, **webhook}
                assert (await traced(http, "query", body)).status_code == 200
                names = (f"POST {API}/query", "run synchronous", "invoke_agent careful", "webhook", "webhook")
                spans = await until_spans(collector, TRACE, *names)
    check_connected(spans)
    (call,) = [span for span in spans if span.name == "invoke_agent careful"]
    assert call.seconds >= 2
    attempts = [span for span in spans if span.name == "webhook"]
    assert [span.attributes["http.response.status_code"] for span in attempts] == [500, 200]
    assert {post.headers["traceparent"].split("-")[1] for post in receiver.at("/hook")} == {TRACE}


async def test_events_reactions_and_derived_events_are_one_trace(tmp_path: Path) -> None:
    async with running_receiver() as collector:
        settings = make_settings(tmp_path)
        with sevenfold("dev", settings, **exported_to(collector)):
            await until_ready(settings.port)
            async with http_client(settings.port) as http:
                for kind, more in (("t.first", {"publishes": "t.second"}), ("t.second", {})):
                    rule = {"filter": {"exact": {"type": kind}}, "agent": "echo", "task": "work", **more}
                    name = kind.replace(".", "-")
                    assert (await http.put(f"{SUBSCRIPTIONS}/{name}", json=rule)).is_success
                headers = {"traceparent": CLIENT, "Content-Type": "application/cloudevents+json"}
                sent = await http.post(EVENTS, content=json.dumps(event("t.first")), headers=headers)
                assert sent.status_code == 202, sent.text
                reactions = ("run reaction", "invoke_agent echo") * 2
                spans = await until_spans(collector, TRACE, f"POST {API}/events", *reactions)
    check_connected(spans)


async def test_each_attempt_of_a_workflow_agent_is_a_span_that_its_workers_continue(tmp_path: Path) -> None:
    config = '[agents.child]\nkind = "workflow"\nworkflow = "Child"\ntask_queue = "children"\n'
    async with running_receiver() as collector:
        # Without a cache every task replays the run from its beginning, and a replay adds no span.
        settings = make_settings(tmp_path, more_config=config, max_cached_workflows=0)
        with sevenfold("dev", settings, **exported_to(collector)):
            await until_ready(settings.port)
            temporal = await Client.connect(f"127.0.0.1:{settings.temporal_port}")
            async with http_client(settings.port) as http, Worker(temporal, task_queue="children", workflows=[Child]):
                body = {"query": "hi", "agent": "child", "params": {"do": "fail twice"}}
                answer = await traced(http, "query", body)
                assert answer.status_code == 200, answer.text
                calls = ("invoke_agent child",) * 3
                spans = await until_spans(collector, TRACE, f"POST {API}/query", "run synchronous", *calls)
                handle = temporal.get_workflow_handle(f"default:{answer.json()['queryId']}/3")
                started = (await handle.fetch_history()).events[0].workflow_execution_started_event_attributes
    check_connected(spans)
    attempts = {span.attributes["sevenfold.attempt"]: span for span in spans if span.name == calls[0]}
    assert [attempts[number].failed for number in (1, 2, 3)] == [True, True, False]
    (continued,) = json.loads(started.header.fields["_tracer-data"].data).values()
    assert continued == f"00-{TRACE}-{attempts[3].span_id}-01"


async def test_an_event_sent_to_a_broker_has_a_span_per_attempt(tmp_path: Path, redis: RedisServer) -> None:
    config = (
        f'[brokers.main]\nkind = "redis"\nurl = "{redis.url}"\n[[brokers.main.publish]]\n'
        'filter = { exact = { type = "t.traced" } }\nto = "traced"\n'
    )
    async with running_receiver() as collector:
        settings = make_settings(tmp_path, more_config=config)
        with sevenfold("dev", settings, **exported_to(collector)):
            await until_ready(settings.port)
            async with http_client(settings.port) as http:
                headers = {"traceparent": CLIENT, "Content-Type": "application/cloudevents+json"}
                sent = await http.post(EVENTS, content=json.dumps(event("t.traced")), headers=headers)
                assert sent.status_code == 202, sent.text
                spans = await until_spans(collector, TRACE, f"POST {API}/events", "send traced")
    check_connected(spans)


async def test_a_killed_worker_leaves_a_connected_trace(tmp_path: Path) -> None:
    """API and workers are three processes; the first worker is killed while it calls the agent."""
    async with running_receiver() as collector:
        settings = make_settings(tmp_path)
        journal = tmp_path / "journal"
        body = {
            "task": "work",
            "agent": "careful",
            "params": {"seconds": 3, "journal": str(journal)},
        }
        variables = exported_to(collector)
        async with EmbeddedTemporalOnly(settings) as address, http_client(settings.port) as http:
            variables["TEMPORAL_ADDRESS"] = address
            with sevenfold("api", settings, **variables), sevenfold("worker", settings, **variables) as first:
                await until_ready(settings.port)
                started = await traced(http, "tasks", body)
                await until(journal.exists, 20)
                await asyncio.sleep(1.5)  # It has sent a heartbeat.
                first.kill()
                with sevenfold("worker", settings, **variables):
                    run_id = started.json()["taskId"]
                    await until(lambda: has_status(http, run_id, "completed"), 60)
                    names = (f"POST {API}/tasks", "run polling", "invoke_agent careful")
                    spans = await until_spans(collector, TRACE, *names)
    check_connected(spans)
    (call,) = [span for span in spans if span.name == "invoke_agent careful"]
    assert call.attributes["sevenfold.attempt"] == 2


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
async def test_a_collector_that_is_away_slows_nobody_down(protocol: str, tmp_path: Path) -> None:
    settings = make_settings(tmp_path)
    away = f"http://127.0.0.1:{free_port()}"
    variables = {"OTEL_EXPORTER_OTLP_ENDPOINT": away, "OTEL_EXPORTER_OTLP_PROTOCOL": protocol}
    with sevenfold("dev", settings, **variables) as process:
        await until_ready(settings.port, process=process)
        async with http_client(settings.port) as http:
            for _ in range(20):
                assert (await http.post(f"{API}/query", json={"query": "x", "agent": "echo"})).status_code == 200
        started_at = time.monotonic()
        assert process.terminate() == 0
        assert time.monotonic() - started_at < 15


def refused(settings: Settings, **variables: str) -> str:
    with sevenfold("worker", settings, TEMPORAL_ADDRESS="127.0.0.1:9", **variables) as process:
        assert process.process.wait(30) == 2
        return process.output()


def test_an_unknown_protocol_is_refused(tmp_path: Path) -> None:
    variables = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_EXPORTER_OTLP_PROTOCOL": "smoke"}
    message = refused(make_settings(tmp_path), **variables)
    assert "OTEL_EXPORTER_OTLP_PROTOCOL is smoke; it must be http/protobuf or grpc" in message


@pytest.mark.parametrize(
    "text", ["", "garbage", f"00-{'0' * 32}-{'1' * 16}-01", f"ff-{'1' * 32}-{'1' * 16}-01", f"00-{'A' * 32}-x-01"]
)
def test_invalid_trace_contexts_are_none(text: str) -> None:
    assert TraceContext.parse(text) is None
    own = run_context(text, "default:qry_1", "run-1")
    assert own == run_context(text, "default:qry_1", "run-1")
    assert own != run_context(text, "default:qry_1", "run-2")
    assert TraceContext.parse(str(own)) == own
