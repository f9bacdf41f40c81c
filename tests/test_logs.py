"""What processes log: a line per request and run, and what failed, where."""

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import httpx
import pytest

from sevenfold.runtime.config.settings import Settings
from tests.support.processes import until
from tests.support.stack import Sevenfold, http_client, make_settings, sevenfold, until_ready

API = "/api/agent"

AGENTS = """
import json
import time


def broken(request):
    return undefined_name


def parsing(request):
    return json.loads(request.query)


async def blocking(request):
    time.sleep(request.params["seconds"])
    return "done"
"""
CONFIG = "".join(
    f'[agents.{name}]\nkind = "python"\ntarget = "support:{name}"\ncircuit = {{enabled = false}}\n'
    for name in ("broken", "parsing", "blocking")
)


def settings_with_agents(directory: Path, **changes: object) -> Settings:
    (directory / "support.py").write_text(AGENTS, encoding="utf-8")
    return make_settings(directory, more_config=CONFIG, **changes)


def lines(process: Sevenfold) -> list[dict[str, Any]]:
    return [json.loads(line) for line in process.output().splitlines() if line.startswith("{")]


async def query(http: httpx.AsyncClient, agent: str, text: str = "hi", **params: object) -> httpx.Response:
    body = {"query": text, "agent": agent, "params": params}
    return await http.post(f"{API}/query", json=body, headers={"X-Request-Id": f"asked-{agent}"})


async def test_requests_runs_and_failures_have_one_line_each(tmp_path: Path) -> None:
    settings = settings_with_agents(tmp_path, development=False)
    with sevenfold("dev", settings) as process:
        await until_ready(settings.port, process=process)
        async with http_client(settings.port) as http:
            trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
            http.headers["traceparent"] = trace
            answered = await query(http, "echo", "a secret of a client")
            failed = await query(http, "broken")
            await query(http, "parsing", "no JSON")
            await http.get(f"{API}/runs/{failed.json()['runId']}")
            await http.get("/a-secret-path?token=a-secret")
            await http.get("/health/live")
        await until(lambda: any(line.get("route") == "none" for line in lines(process)), 5)
        output = process.output()
        shown = lines(process)

    def those(event: str, **fields: object) -> list[dict[str, Any]]:
        return [line for line in shown if line["event"] == event and fields.items() <= line.items()]

    run_id = answered.json()["queryId"]
    (request,) = those("request", run_id=run_id)
    assert (request["method"], request["route"], request["status"]) == ("POST", f"{API}/query", 200)
    assert (request["tenant"], request["request_id"]) == ("default", "asked-echo")
    assert request["trace_id"] == trace.split("-")[1]
    assert 0 < request["seconds"] < 60
    (ended,) = those("run ended", run_id=run_id)
    assert (ended["outcome"], ended["agent"], ended["request_id"]) == ("completed", "echo", "asked-echo")
    assert ended["trace_id"] == request["trace_id"]
    (ended,) = those("run ended", run_id=failed.json()["runId"])
    assert (ended["outcome"], ended["error"]) == ("failed", "AgentBug")
    # Of each attempt a line that names the place, and the traceback once.
    attempts = those("attempt failed", run_id=failed.json()["runId"])
    assert [one["attempt"] for one in attempts] == [1, 2, 3, 4, 5]
    assert {one["at"] for one in attempts} == {"support.py:7"}
    assert {one["error"] for one in attempts} == {"NameError: name 'undefined_name' is not defined"}
    assert ["exception" in one for one in attempts] == [True, False, False, False, False]
    assert "support.py" in attempts[0]["exception"]
    # The place is in the agent, not in the library that raised.
    assert {one["at"] for one in those("attempt failed", code="AgentFailed")} == {"support.py:11"}
    assert "Completing activity as failed" not in output
    assert those("request", route=f"{API}/runs/{{run_id}}", run_id=failed.json()["runId"])
    assert "secret" not in output
    assert not those("request", route="/health/live")
    assert max(map(len, output.splitlines())) < 4_000


async def test_levels_are_set_by_logger(tmp_path: Path) -> None:
    settings = settings_with_agents(tmp_path, log_level="warning,sevenfold.api=debug")
    with sevenfold("dev", settings) as process:
        await until_ready(settings.port, process=process)
        async with http_client(settings.port) as http:
            assert (await query(http, "echo")).status_code == 200
        await until(lambda: any(line["event"] == "request" for line in lines(process)), 5)
        shown = lines(process)
    assert any(line.get("route") == "/health/ready" for line in shown), "debug"
    assert not any(line["event"] == "run ended" for line in shown), "another logger's info"


@pytest.mark.parametrize("text", ["loud", "info,debug", "sevenfold.api=loud", "=info", "a b=info"])
def test_malformed_levels_are_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="must be debug, info, warning or error"):
        make_settings(tmp_path, log_level=text)


async def test_what_blocks_the_event_loop_is_named(tmp_path: Path) -> None:
    settings = settings_with_agents(tmp_path)
    with sevenfold("dev", settings) as process:
        await until_ready(settings.port, process=process)
        async with http_client(settings.port) as http:
            assert (await query(http, "blocking", seconds=3)).status_code == 200
            lag = [
                line for line in (await http.get("/metrics")).text.splitlines() if "event_loop_lag_seconds" in line
            ]
        await until(lambda: any("blocked the event loop for" in line["event"] for line in lines(process)), 10)
        found = [line for line in lines(process) if line["event"] == "the event loop is blocked"]
    (blocked,) = [line for line in found if line["at"].endswith("support.py:15")]
    assert "support.py:15 blocking" in blocked["stack"]
    assert blocked["agent"] == "blocking"
    (ended,) = [line for line in lines(process) if "blocked the event loop for" in line["event"]]
    assert re.fullmatch(
        r"blocking blocked the event loop for 3\.\d s at support\.py:15; use a plain def, or asyncio\.to_thread",
        ended["event"],
    )
    assert float(lag[-1].split()[-1]) > 2


async def test_a_loop_that_is_blocked_for_too_long_ends_the_process(tmp_path: Path) -> None:
    settings = settings_with_agents(tmp_path, watchdog_seconds=3)
    with sevenfold("dev", settings) as process:
        await until_ready(settings.port, process=process)
        async with http_client(settings.port) as http:
            asking = asyncio.create_task(query(http, "blocking", seconds=60))
            assert await asyncio.to_thread(process.process.wait, 40) == 70
            assert isinstance((await asyncio.gather(asking, return_exceptions=True))[0], httpx.TransportError)
        (end,) = [line for line in lines(process) if "the process ends" in line["event"]]
    assert end["at"].endswith("support.py:15")
