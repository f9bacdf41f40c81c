"""kill -9 beside the unchanged `openai` package: nothing is lost, nothing starts twice, and numbers stay."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from openai import APIConnectionError, AsyncOpenAI, RateLimitError

from sevenfold.runtime.config.settings import Settings
from tests.support.openai_clients import asks, client_at, openai_client
from tests.support.processes import EmbeddedTemporalOnly
from tests.support.stack import Sevenfold, http_client, make_settings, running_stack, sevenfold, until_ready

SAY = [f"{number} " for number in range(60)]
SLOWLY = asks(say=SAY, pause=0.1)


@dataclass
class Gateway:
    """An API and a worker as processes of their own."""

    settings: Settings
    address: str
    processes: ExitStack
    openai: AsyncOpenAI
    running: dict[str, Sevenfold] = field(default_factory=dict)

    def start(self, command: str) -> None:
        env = {"TEMPORAL_ADDRESS": self.address}
        self.running[command] = self.processes.enter_context(sevenfold(command, self.settings, **env))

    async def replace(self, command: str) -> None:
        """kill -9, and a successor."""
        self.running[command].kill()
        self.start(command)
        await until_ready(self.settings.port)


@asynccontextmanager
async def gateway(directory: Path, **changes: object) -> AsyncIterator[Gateway]:
    settings = make_settings(directory, **changes)
    async with EmbeddedTemporalOnly(settings) as address, client_at(settings.port, max_retries=8) as openai:
        with ExitStack() as processes:
            running = Gateway(settings, address, processes, openai)
            running.start("api")
            running.start("worker")
            await until_ready(settings.port)
            yield running


async def test_a_stream_survives_the_api(tmp_path: Path) -> None:
    async with gateway(tmp_path) as running:
        stream = await running.openai.responses.create(model="teller", input="x", stream=True, extra_body=SLOWLY)
        seen: list[Any] = []
        with pytest.raises((httpx.HTTPError, APIConnectionError)):
            await read_and_kill(stream, seen, running.running["api"])
        await running.replace("api")
        response_id, last = seen[0].response.id, seen[-1].sequence_number
        rest = [
            one
            async for one in await running.openai.responses.retrieve(response_id, stream=True, starting_after=last)
        ]
        events = seen + rest
        assert "".join(one.delta for one in events if one.type == "response.output_text.delta") == "".join(SAY)
        again = [one async for one in await running.openai.responses.retrieve(response_id, stream=True)]
        assert [(one.type, one.sequence_number) for one in events] == [
            (one.type, one.sequence_number) for one in again
        ]
        assert rest[-1].response.output_text == "".join(SAY)


async def read_and_kill(stream: Any, seen: list[Any], process: Sevenfold) -> None:
    async for one in stream:
        seen.append(one)
        if getattr(one, "delta", "") == "10 ":
            process.kill()


async def test_a_stream_survives_the_worker(tmp_path: Path) -> None:
    """The client stays connected. What was sent is closed as incomplete, and the text begins anew."""
    async with gateway(tmp_path) as running:
        stream = await running.openai.responses.create(model="teller", input="x", stream=True, extra_body=SLOWLY)
        events: list[Any] = []
        was_killed = False
        async for one in stream:
            events.append(one)
            if getattr(one, "delta", "") == "10 " and not was_killed:
                was_killed = True
                running.running["worker"].kill()
                running.start("worker")
        assert events[-1].type == "response.completed"
        assert events[-1].response.output_text == "".join(SAY)
        added = [one.output_index for one in events if one.type == "response.output_item.added"]
        assert added == [0, 1]
        numbers = [one.sequence_number for one in events]
        assert numbers == sorted(set(numbers))


async def test_background_and_polling_survive_both(tmp_path: Path) -> None:
    async with gateway(tmp_path) as running:
        started = await running.openai.responses.create(
            model="careful", input="x", background=True, extra_body=asks(seconds=4)
        )
        await asyncio.sleep(1)
        await running.replace("worker")
        await running.replace("api")
        async with asyncio.timeout(60):
            while (found := await running.openai.responses.retrieve(started.id)).status != "completed":
                await asyncio.sleep(0.2)
        assert found.output_text
        await running.openai.responses.delete(started.id)


async def test_the_clients_retries_find_the_run_at_the_next_api(tmp_path: Path) -> None:
    """No key is sent: the client repeats its request by itself until an API answers."""
    journal = tmp_path / "journal"
    async with gateway(tmp_path) as running:
        asking = asyncio.create_task(
            running.openai.chat.completions.create(
                model="careful",
                messages=[{"role": "user", "content": "once"}],
                extra_body=asks(seconds=2.5, journal=str(journal)),
            )
        )
        async with asyncio.timeout(30):
            while not journal.exists():
                await asyncio.sleep(0.05)
        await running.replace("api")
        assert (await asking).choices[0].message.content
        async with http_client(running.settings.port) as http:
            runs = (await http.get("/api/agent/runs", params={"agent": "careful"})).json()["items"]
    assert len(runs) == 1
    assert [line.split()[-1] for line in journal.read_text().splitlines()] == ["started", "finished"]


async def test_the_client_waits_where_a_quota_is_used_up(tmp_path: Path) -> None:
    async with running_stack(tmp_path, more_config="[tenants.default]\nopen_runs = 1\n") as stack:
        async with openai_client(stack, max_retries=8) as patient, openai_client(stack, max_retries=0) as hasty:
            first = await patient.responses.create(
                model="careful", input="x", background=True, extra_body=asks(seconds=2)
            )
            with pytest.raises(RateLimitError) as refused:
                await hasty.responses.create(model="echo", input="x")
            assert int(refused.value.response.headers["Retry-After"]) >= 1
            assert "x-should-retry" not in refused.value.response.headers
            assert (await patient.responses.create(model="echo", input="second")).output_text == "second"
            assert (await patient.responses.retrieve(first.id)).status == "completed"
        runs = (await stack.http.get("/api/agent/runs")).json()["items"]
    assert len(runs) == 2
