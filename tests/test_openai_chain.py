"""A gateway behind a gateway: the agent of one is an agent of another, behind its `/v1`."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from sevenfold.adapters.temporal.run_restarts import load_input
from sevenfold.contracts.identity import build_workflow_id
from sevenfold.contracts.runs.run import RunInput
from tests.support.openai_clients import openai_client
from tests.support.stack import Stack, running_stack

AGENTS = ("careful", "hopeless", "torn_once", "simulator")
APIS = ("chat", "responses")


def front_config(port: int, directory: Path) -> str:
    """The agents of the gateway in front. It sends their `options` with each request."""
    sections = []
    for api in APIS:
        options = {"careful": "{seconds = 15}", "torn_once": f'{{journal = "{directory}/{api}"}}'}
        sections += [
            f'[agents.{agent}_{api}]\nkind = "openai"\napi = "{api}"\nmodel = "{agent}"\n'
            f'base_url = "http://127.0.0.1:{port}/v1"\ncircuit = {{enabled = false}}\n'
            f"options = {{sevenfold = {{params = {options.get(agent, '{}')}}}}}"
            for agent in AGENTS
        ]
    return "\n".join(sections)


@pytest.fixture(scope="module")
async def front(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    """A gateway whose agents are those of `stack`."""
    directory = tmp_path_factory.mktemp("front")
    async with running_stack(directory, more_config=front_config(stack.settings.port, directory)) as running:
        yield running


async def runs_behind(stack: Stack, agent: str) -> list[dict[str, Any]]:
    return list((await stack.http.get("/api/agent/runs", params={"agent": agent, "limit": 100})).json()["items"])


@pytest.mark.parametrize("api", APIS)
async def test_order_and_usage_pass_through(api: str, front: Stack) -> None:
    async with openai_client(front) as openai:
        stream = await openai.chat.completions.create(
            model=f"simulator_{api}",
            messages=[{"role": "user", "content": "one two three"}],
            stream=True,
            stream_options={"include_usage": True},
        )
        chunks = [one async for one in stream]
        behind = await openai.chat.completions.create(
            model="simulator", messages=[{"role": "user", "content": "one two three"}]
        )
    texts = [one.choices[0].delta.content for one in chunks if one.choices and one.choices[0].delta.content]
    assert len(texts) > 1
    assert "".join(texts) == behind.choices[0].message.content
    assert behind.usage is not None
    assert behind.usage.prompt_tokens == 3
    assert chunks[-1].usage == behind.usage


@pytest.mark.parametrize("api", APIS)
async def test_conversations_and_options_pass_through(api: str, stack: Stack, front: Stack) -> None:
    async with openai_client(front) as openai:
        first = await openai.responses.create(model=f"simulator_{api}", input="my name is Ada", temperature=0.5)
        await openai.responses.create(
            model=f"simulator_{api}", input="who am I", instructions="Be brief.", previous_response_id=first.id
        )
    latest = (await runs_behind(stack, "simulator"))[0]
    handle = stack.temporal.get_workflow_handle(build_workflow_id("default", latest["id"]))
    asked = await load_input(stack.temporal, await handle.describe())
    assert isinstance(asked, RunInput)
    assert [one.role for one in asked.request.messages][-3:] == ["user", "assistant", "user"]
    assert asked.request.messages[-1].text == "who am I"


@pytest.mark.parametrize("api", APIS)
async def test_failures_pass_through_and_are_not_repeated(api: str, stack: Stack, front: Stack) -> None:
    """The gateway behind has made all the attempts that there are."""
    before = len(await runs_behind(stack, "hopeless"))
    answer = await front.query(agent=f"hopeless_{api}")
    assert answer.status_code == 502, answer.text
    assert answer.json()["type"] == "/problems/agent-rejected"
    assert "never does that" in answer.json()["detail"]
    assert len(await runs_behind(stack, "hopeless")) == before + 1


@pytest.mark.parametrize("api", APIS)
async def test_a_reset_behind_is_another_attempt_in_front(api: str, front: Stack) -> None:
    """Nothing of the void text is left in the answer."""
    answer = await front.query(agent=f"torn_once_{api}")
    assert answer.status_code == 200, answer.text
    assert answer.json()["response"] == "the whole"


@pytest.mark.parametrize("api", APIS)
async def test_cancellation_passes_through(api: str, stack: Stack, front: Stack) -> None:
    known = {one["id"] for one in await runs_behind(stack, "careful")}
    started = await front.query(agent=f"careful_{api}", headers={"Prefer": "wait=0"})
    async with asyncio.timeout(20):
        while not (new := [one for one in await runs_behind(stack, "careful") if one["id"] not in known]):
            await asyncio.sleep(0.1)
    await front.http.post(f"/api/agent/runs/{started.json()['queryId']}/cancel")
    await stack.run_until(new[0]["id"], "cancelled")
