"""examples/refund: the same agent as a function, behind HTTP and with Pydantic AI."""

import asyncio
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from bench.ports import free_port
from tests.support.stack import ROOT, http_client, make_settings, sevenfold, until_ready

EXAMPLE = ROOT / "examples" / "refund"
API = "/api/agent"
AGENTS = ("refund", "refund-http", "refund-pydantic-ai")


@pytest.fixture(scope="module")
async def refunds(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[httpx.AsyncClient, Path]]:
    directory = tmp_path_factory.mktemp("refund")
    settings = make_settings(directory)
    shutil.copytree(EXAMPLE, directory, dirs_exist_ok=True)
    port = free_port()
    settings.config.write_text(settings.config.read_text().replace("127.0.0.1:9001", f"127.0.0.1:{port}"))
    program = [sys.executable, "-m", "uvicorn", "refund_http:app", "--port", str(port)]
    with (directory / "http.log").open("wb") as output:
        service = subprocess.Popen(program, cwd=directory, stdout=output, stderr=output)  # noqa: ASYNC220
        try:
            with sevenfold("dev", settings) as dev:
                await until_ready(settings.port, process=dev)
                async with http_client(settings.port) as client:
                    yield client, directory / "payments.log"
        finally:
            service.kill()
            service.wait(10)


async def ended(http: httpx.AsyncClient, agent: str, order: str, approval: Any = None) -> dict[str, Any]:
    body = {"task": "refund", "agent": agent, "data": {"order": order}}
    run_id = (await http.post(f"{API}/jobs", json=body)).json()["jobId"]
    run = await until_it_stops(http, run_id)
    if run["status"] != "input_required":
        return run
    assert "120" in run["requests"][0]["message"]
    answered = await http.post(f"{API}/runs/{run_id}/responses", json={"responses": {"approve": approval}})
    assert answered.status_code == 200, answered.text
    return await until_it_stops(http, run_id)


async def until_it_stops(http: httpx.AsyncClient, run_id: str) -> dict[str, Any]:
    """The run, once it has ended or asks; after an answer the job is queued again."""
    while (run := (await http.get(f"{API}/runs/{run_id}")).json())["status"] in ("queued", "processing"):
        await asyncio.sleep(0.05)
    return dict(run)


@pytest.mark.parametrize("agent", AGENTS)
async def test_a_dear_refund_asks_and_pays_once(agent: str, refunds: tuple[httpx.AsyncClient, Path]) -> None:
    http, payments = refunds
    before = payments.read_text().splitlines() if payments.exists() else []
    run = await ended(http, agent, "4711", {"action": "accept", "content": True})
    assert run["status"] == "completed", run
    assert "Refunded 120 €." in run["result"]["response"]
    paid = payments.read_text().splitlines()[len(before) :]
    assert [line.split()[0] for line in paid] == ["120"]
    names = [one["name"] for one in run["steps"]]
    assert names == (["model", "find-order", "pay", "model"] if agent.endswith("ai") else ["find-order", "pay"]), (
        "nothing was executed twice"
    )
    run = await ended(http, agent, "4711", {"action": "decline"})
    assert run["status"] == "completed", run
    assert "declined" in run["result"]["response"]
    assert len(payments.read_text().splitlines()) == len(before) + 1


async def test_a_small_refund_asks_nobody(refunds: tuple[httpx.AsyncClient, Path]) -> None:
    http, _ = refunds
    run = await ended(http, "refund", "4712")
    assert run["result"]["data"]["refunded"] is True
