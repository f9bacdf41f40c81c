"""What an agent's author sees in development: bugs at once, with their place."""

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from sevenfold.adapters.agents.error_boundary import as_agent_error, explain_bug
from sevenfold.contracts.agents.errors import AgentBug, AgentFailed, ErrorCode
from sevenfold.runtime.config.settings import Settings
from tests.support.stack import http_client, make_settings, sevenfold, until_ready

API = "/api/agent"

AGENTS = """
import json


def misspelt(request):
    return answer(request)


def answer(request):
    return requst.query


async def streaming(request):
    yield "Hello"
    yield None + 1


def unreadable(request):
    return [1][3]


def away(request):
    raise ConnectionRefusedError("not a bug")


async def halved(request):
    yield "only half"


def painting(request):
    raise NameError("\\x1b[2J\\x07")
"""
NAMES = ("misspelt", "streaming", "unreadable", "away", "halved", "painting")


def settings_with_agents(directory: Path, **changes: object) -> Settings:
    (directory / "shop_agents.py").write_text(AGENTS, encoding="utf-8")
    config = "".join(f'[agents.{name}]\nkind = "python"\ntarget = "shop_agents:{name}"\n' for name in NAMES)
    return make_settings(directory, more_config=config, log_level="info", **changes)


async def query(http: httpx.AsyncClient, agent: str) -> httpx.Response:
    return await http.post(f"{API}/query", json={"query": "hi", "agent": agent, "timeout": 30})


async def test_a_bug_is_shown_at_once_is_not_retried_and_opens_no_circuit(tmp_path: Path) -> None:
    settings = settings_with_agents(tmp_path)
    with sevenfold("dev", settings) as process:
        await until_ready(settings.port, process=process)
        async with http_client(settings.port) as http:
            answers = [await query(http, "misspelt") for _ in range(12)]
            for response in answers:
                problem = response.json()
                assert response.status_code == 502, problem
                assert (problem["code"], problem["attempts"]) == ("AgentBug", 1)
                assert problem["detail"] == (
                    "The agent raised NameError at shop_agents.py:10: name 'requst' is not defined"
                )
                assert "    return requst.query" in problem["traceback"]
                assert "shop_agents.py" in problem["traceback"][1], "without the frames of Sevenfold"
                assert problem["traceback"][-1] == "NameError: name 'requst' is not defined"
            run = (await http.get(f"{API}/runs/{answers[0].json()['runId']}")).json()
            assert "requst" in run["error"]["traceback"]
            agents = (await http.get(f"{API}/agents")).json()["items"]
            assert [agent["circuit"]["state"] for agent in agents if agent["name"] == "misspelt"] == ["closed"]
            streamed = (await query(http, "streaming")).json()
            assert "TypeError at shop_agents.py:15: unsupported operand" in streamed["detail"]
            index = (await query(http, "unreadable")).json()
            assert (index["code"], index["attempts"]) == ("AgentBug", 1), "whatever it raises"
            assert "IndexError at shop_agents.py:19" in index["detail"]
            outage = (await query(http, "away")).json()
            assert (outage["code"], outage["attempts"]) == ("AgentFailed", 5), "not a bug: it is retried"
            assert "traceback" not in outage
            halved = (await query(http, "halved")).json()
            assert (halved["attempts"], "without a reply. Yield or return one" in halved["detail"]) == (1, True)
            painting = (await query(http, "painting")).json()
            assert "\\x1b[2J\\x07" in painting["detail"]
            items = await failed_items(http)
            assert {one["error"]["code"] for one in items} == {"AgentBug"}
            assert all("shop_agents.py:10" in one["error"]["detail"] for one in items)
            assert all(one["error"]["attempts"] == 1 for one in items)
    assert "\x1b" not in process.output()
    assert process.output().count("Traceback (most recent call last)") >= 12


async def failed_items(http: httpx.AsyncClient) -> list[dict[str, Any]]:
    body = {"task": "work", "agent": "misspelt", "data": {"items": [1, 2, 3]}}
    job = (await http.post(f"{API}/jobs", json=body)).json()["jobId"]
    async with asyncio.timeout(30):
        while (await http.get(f"{API}/jobs/{job}")).json()["status"] not in ("completed", "failed"):
            await asyncio.sleep(0.2)
    lines = (await http.get(f"{API}/jobs/{job}/results")).text.splitlines()
    return [json.loads(line) for line in lines]


async def test_in_production_a_bug_is_retried_with_a_code_of_its_own(tmp_path: Path) -> None:
    settings = settings_with_agents(tmp_path, development=False)
    with sevenfold("dev", settings) as process:
        await until_ready(settings.port, process=process)
        async with http_client(settings.port) as http:
            problem = (await query(http, "misspelt")).json()
            assert (problem["code"], problem["attempts"]) == ("AgentBug", 5)
            assert problem["detail"] == "The agent raised NameError."
            assert "requst" not in str(problem)
            metrics = (await http.get("/metrics")).text
    assert 'sevenfold_agent_retries_total{agent="misspelt",error="AgentBug"} 4.0' in metrics


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (KeyError("x"), ErrorCode.AGENT_BUG),
        (AttributeError("x"), ErrorCode.AGENT_BUG),
        (ModuleNotFoundError("x"), ErrorCode.AGENT_BUG),
        (UnboundLocalError("x"), ErrorCode.AGENT_BUG),
        (AssertionError(), ErrorCode.AGENT_BUG),
        (ValueError("x"), ErrorCode.AGENT_FAILED),
        (ConnectionError("x"), ErrorCode.AGENT_FAILED),
        (TimeoutError("x"), ErrorCode.AGENT_FAILED),
        (SystemExit(3), ErrorCode.AGENT_FAILED),
    ],
)
def test_bugs_are_distinguished_from_failures(error: BaseException, code: ErrorCode) -> None:
    assert as_agent_error(error).code is code


def test_an_explanation_survives_odd_exceptions() -> None:
    class UnreadableError(KeyError):
        def __str__(self) -> str:
            raise SystemExit

    bug = as_agent_error(UnreadableError("x"))
    assert isinstance(bug, AgentBug)
    explained = explain_bug(bug)
    assert "UnreadableError: (the text of this exception cannot be read)" in explained.detail
    assert isinstance(explained, AgentFailed), "the API maps it to the same problem"
    huge = as_agent_error(KeyError("x" * 100_000))
    assert isinstance(huge, AgentBug)
    assert len(explain_bug(huge).detail) <= 2_000
    assert len(explain_bug(huge).traceback or "") <= 8_000
