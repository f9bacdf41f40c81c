"""A rolling restart of two APIs and two workers under load: no request fails, and streams resume."""

import asyncio
import itertools
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from bench.ports import free_port
from bench.server_sent_events import Event, events
from sevenfold.runtime.config.settings import Settings
from tests.support.processes import EmbeddedTemporalOnly
from tests.support.stack import Sevenfold, http_client, make_settings, sevenfold, until_ready
from tests.support.streams import indexes, last_index, text_of

WORDS = [f"word{number} " for number in range(1, 121)]
IN_FLIGHT = 8


@dataclass
class Gateway:
    """Two APIs behind a balancer that asks the other one if a connection is refused, as nginx and Envoy do."""

    settings: Settings
    address: str
    stack: ExitStack
    ports: list[int] = field(default_factory=list)
    clients: dict[int, httpx.AsyncClient] = field(default_factory=dict)
    failures: list[object] = field(default_factory=list)
    answers: list[str] = field(default_factory=list)

    def start(self, command: str, port: int | None = None) -> Sevenfold:
        settings = self.settings.model_copy(update={"port": port or free_port()})
        return self.stack.enter_context(sevenfold(command, settings, TEMPORAL_ADDRESS=self.address))

    async def send(self, method: str, path: str, **more: Any) -> httpx.Response:
        """Sends to the APIs in turn; only a connection that was never made is tried elsewhere."""
        self.ports.append(self.ports.pop(0))
        for port in itertools.cycle(list(self.ports)):
            try:
                return await self.clients[port].send(
                    self.clients[port].build_request(method, path, **more), stream=True
                )
            except httpx.ConnectError:
                await asyncio.sleep(0.02)
        raise AssertionError

    async def ask_until(self, done: asyncio.Event, number: int, journal: Path) -> None:
        for count in itertools.count():
            if done.is_set():
                return
            params = {"seconds": 0.3, "journal": str(journal)}
            body = {"query": "hi", "agent": "careful", "params": params}
            headers = {"Idempotency-Key": f"{number}-{count}", "Prefer": "wait=30"}
            try:
                answer = await self.send("POST", "/api/agent/query", json=body, headers=headers)
                await answer.aread()
            except httpx.TransportError as error:
                self.failures.append(error)
                continue
            if answer.status_code == 200:
                self.answers.append(answer.json()["queryId"])
            else:
                self.failures.append((answer.status_code, answer.text))

    async def read_stream(self) -> list[Event]:
        """Starts a stream and resumes it wherever `reconnect` or the end of the connection sends it."""
        params = {"say": WORDS, "pause": 0.25}
        body = {"query": "hi", "agent": "teller", "params": params}
        answer = await self.send("POST", "/api/agent/stream", json=body)
        stream_id, found = answer.headers["X-Stream-Id"], []
        while True:
            async for event in events(answer):
                found.append(event)
            await answer.aclose()
            if found and found[-1].name in ("done", "error"):
                return found
            after = {"Last-Event-ID": str(last_index(found))}
            answer = await self.send("GET", f"/api/agent/stream/{stream_id}", headers=after)
            assert answer.status_code == 200, await answer.aread()


async def test_no_request_fails_while_all_processes_are_restarted_one_by_one(tmp_path: Path) -> None:
    settings = make_settings(tmp_path, grace_seconds=10)
    journal = tmp_path / "journal"
    async with EmbeddedTemporalOnly(settings) as address:
        with ExitStack() as stack:
            gateway = Gateway(settings, address, stack)
            gateway.ports = [free_port(), free_port()]
            apis = {port: gateway.start("api", port) for port in gateway.ports}
            workers = [gateway.start("worker"), gateway.start("worker")]
            for port in list(gateway.ports):
                gateway.clients[port] = http_client(port)
                await until_ready(port)
            done = asyncio.Event()
            load = [asyncio.create_task(gateway.ask_until(done, number, journal)) for number in range(IN_FLIGHT)]
            stream = asyncio.create_task(gateway.read_stream())
            await asyncio.sleep(2)
            for worker in workers:
                assert await asyncio.to_thread(worker.terminate) == 0
                gateway.start("worker")
                await asyncio.sleep(2)
            for port, api in apis.items():
                assert await asyncio.to_thread(api.terminate) == 0
                gateway.start("api", port)
                await until_ready(port)
            await asyncio.sleep(1)
            done.set()
            await asyncio.gather(*load)
            found = await stream
            for client in gateway.clients.values():
                await client.aclose()
    assert gateway.failures == []
    assert len(gateway.answers) > 50
    # Each agent call ended before its worker did, so none was repeated.
    calls = Counter(line.split()[-1] for line in journal.read_text().splitlines())
    assert calls["started"] == calls["finished"] == len(set(gateway.answers))
    assert found[-1].name == "done"
    assert text_of(found) == "".join(WORDS)
    assert sorted(set(indexes(found))) == sorted(indexes(found)), "no chunk came twice"
