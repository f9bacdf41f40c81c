"""examples/agents, by its README's own commands: each kind of agent, and each framework."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from bench.ports import free_port
from tests.support.stack import ROOT, http_client, make_settings, sevenfold, until_ready

EXAMPLE = ROOT / "examples" / "agents"
COMMANDS = re.findall(
    r"/api/agent/(\w+) -H 'Content-Type: application/json' -d '(\{.*?\})'\n", (EXAMPLE / "README.md").read_text()
)


@contextmanager
def started(*command: str, cwd: Path, **env: str) -> Iterator[None]:
    with (cwd / f"{free_port()}.log").open("wb") as output:
        process = subprocess.Popen([sys.executable, *command], cwd=cwd, stdout=output, stderr=output, env=env)
        try:
            yield
        finally:
            process.kill()
            process.wait(10)


@pytest.fixture(scope="module")
async def http(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[httpx.AsyncClient]:
    directory = tmp_path_factory.mktemp("agents")
    settings = make_settings(directory)
    shutil.copytree(EXAMPLE, directory, dirs_exist_ok=True)
    port = free_port()
    config = settings.config.read_text()
    assert "127.0.0.1:9001" in config
    settings.config.write_text(config.replace("127.0.0.1:9001", f"127.0.0.1:{port}"))
    address = f"127.0.0.1:{settings.temporal_port}"
    with (
        started("-m", "uvicorn", "fastapi_agent:app", "--port", str(port), cwd=directory),
        sevenfold("dev", settings) as dev,
    ):
        await until_ready(settings.port, process=dev)
        with started("research/worker.py", cwd=directory, TEMPORAL_ADDRESS=address):
            async with http_client(settings.port) as client:
                yield client


async def asked(http: httpx.AsyncClient, number: int) -> httpx.Response:
    path, body = COMMANDS[number]
    return await http.post(f"/api/agent/{path}", json=json.loads(body))


async def ended(http: httpx.AsyncClient, run_id: str) -> dict[str, Any]:
    answer = await http.get(f"/api/agent/tasks/{run_id}", params={"wait": 30})
    while answer.json()["status"] == "processing":
        etag = {"If-None-Match": answer.headers["etag"]}
        answer = await http.get(f"/api/agent/tasks/{run_id}", params={"wait": 30}, headers=etag)
    return dict(answer.json())


async def test_fastapi_agent_answers_a_query(http: httpx.AsyncClient) -> None:
    answer = (await asked(http, 0)).json()
    assert answer["response"] == "It costs 25.00 €."
    assert 0 < answer["data"]["timeout"] <= 300, "it learns how much time there is"
    refused = await ended(http, (await asked(http, 1)).json()["taskId"])
    assert refused["status"] == "failed"
    assert "to DE, NO, US we do" in refused["error"]["detail"]


async def test_fastapi_agent_streams(http: httpx.AsyncClient) -> None:
    body = {"query": "x", "agent": "shipping", "context": {"country": "DE"}}
    answer = await http.post("/api/agent/hybrid", json={**body, "task": "explain"})
    assert answer.json()["response"] == "To DE we ship by air, for 9.50 €."
    lines = (await http.get(f"/api/agent/runs/{answer.json()['hybridId']}/stream?after=0")).text
    assert "we ship by air" in lines


async def test_pydantic_ai_agent_answers_a_query(http: httpx.AsyncClient) -> None:
    answer = (await asked(http, 2)).json()
    assert answer["response"] == "We will refund you."
    assert answer["data"] == {"category": "billing", "urgent": True}
    assert answer["usage"]["inputTokens"] > 0


async def test_langgraph_agent_reports_progress_and_answers(http: httpx.AsyncClient) -> None:
    answer = (await asked(http, 3)).json()
    assert answer["response"] == "Thank you. Our billing team has your request."
    assert answer["data"] == {"category": "billing"}


async def streamed_text(http: httpx.AsyncClient, agent: str) -> list[str]:
    body = {"query": "hi", "agent": agent}
    lines = (await http.post("/api/agent/stream", json=body)).text.splitlines()
    found = [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: ")]
    return [one["chunk"] for one in found if "chunk" in one]


async def test_langgraph_chat_streams_as_it_is(http: httpx.AsyncClient) -> None:
    assert (await asked(http, 5)).json()["response"] == "Let me look into that."
    assert "".join(await streamed_text(http, "chat")) == "Let me look into that."


async def test_openai_sdk_agent_streams_and_counts(http: httpx.AsyncClient) -> None:
    answer = (await asked(http, 6)).json()
    assert answer["response"] == "Your table is booked."
    assert answer["usage"] == {"inputTokens": 7, "outputTokens": 4}
    assert "".join(await streamed_text(http, "concierge")) == "Your table is booked."


async def test_program_answers_a_query(http: httpx.AsyncClient) -> None:
    answer = (await asked(http, 7)).json()
    assert (answer["response"], answer["data"]) == ("5 words", {"words": 5})


async def test_workflow_agent_answers_a_query(http: httpx.AsyncClient) -> None:
    answer = (await asked(http, 4)).json()
    assert answer["data"] == {"sources": 3}
    assert answer["response"].count("were looked up") == 3
    run = (await http.get(f"/api/agent/runs/{answer['queryId']}")).json()
    assert run["status"] == "completed"


async def test_agents_endpoint_lists_the_examples(http: httpx.AsyncClient) -> None:
    items = {item["name"]: item for item in (await http.get("/api/agent/agents")).json()["items"]}
    kinds = {name: item["kind"] for name, item in items.items()}
    assert kinds == {
        "builtin": "builtin",
        "simulator": "simulator",
        "shipping": "http",
        "support": "python",
        "triage": "python",
        "chat": "python",
        "concierge": "python",
        "words": "command",
        "research": "workflow",
    }
    assert items["shipping"]["maxConcurrency"] == 20
    assert items["shipping"]["circuit"]["state"] == "closed"
    assert items["support"]["rate"] == 10
    assert items["research"]["circuit"] is None
