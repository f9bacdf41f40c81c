"""Streams whose processes are killed or stopped: the reader goes on elsewhere and has the whole text."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from bench.ports import free_port
from bench.server_sent_events import Event, events
from sevenfold.runtime.config.settings import Settings
from tests.support.processes import EmbeddedTemporalOnly, until
from tests.support.redis_server import RedisServer
from tests.support.stack import (
    ROOT,
    Sevenfold,
    Stack,
    children_of,
    environment,
    http_client,
    make_settings,
    sevenfold,
    until_ready,
)
from tests.support.streams import indexes, last_index, read, started, text_of
from tests.test_startup import refused

LONG_ANSWER = [f"word{number} " for number in range(1, 61)]
WHOLE = "".join(LONG_ANSWER)


@pytest.fixture(params=["temporal", "redis"])
def log(request: pytest.FixtureRequest) -> dict[str, object]:
    """The settings that select the stream log."""
    return {"redis_url": request.getfixturevalue("redis").url} if request.param == "redis" else {}


@dataclass
class Processes:
    """One Temporal server, and what is started on it."""

    settings: Settings
    address: str
    stack: ExitStack

    def start(self, command: str, *options: str) -> tuple[Sevenfold, int]:
        settings = self.settings.model_copy(update={"port": free_port()})
        running = self.stack.enter_context(sevenfold(command, settings, *options, TEMPORAL_ADDRESS=self.address))
        return running, settings.port


@pytest.fixture
async def processes(tmp_path: Path, log: dict[str, object]) -> AsyncIterator[Processes]:
    settings = make_settings(tmp_path, **log)
    async with EmbeddedTemporalOnly(settings) as address:
        with ExitStack() as stack:
            yield Processes(settings, address, stack)


def body(journal: Path, hold: Path) -> dict[str, Any]:
    params = {"say": LONG_ANSWER, "pause": 0.05, "journal": str(journal), "hold": str(hold)}
    return {"query": "hi", "agent": "teller", "params": params}


async def read_until_cut(http: httpx.AsyncClient, journal: Path, cut: Any) -> tuple[str, list[Event]]:
    """Starts a stream; `cut()` is called after 20 chunks, and the agent sends few more before that. Returns the id,
    and what was read when the connection broke or ended.
    """
    found: list[Event] = []
    hold = journal.with_name("goes-on")
    if cut is None:
        hold.touch()
    async with http.stream("POST", "/api/agent/stream", json=body(journal, hold)) as answer:
        stream_id = answer.headers["X-Stream-Id"]
        with suppress(httpx.TransportError):
            async for event in events(answer):
                found.append(event)
                if len(indexes(found)) == 20 and cut is not None:
                    cut, now = None, cut
                    now()
                    hold.touch()
    return stream_id, found


async def test_stream_continues_after_its_api_was_killed(processes: Processes, tmp_path: Path) -> None:
    first, port = processes.start("api")
    _, other_port = processes.start("api")
    processes.start("worker")
    await until_ready(port)
    await until_ready(other_port)
    async with http_client(port) as http, http_client(other_port) as other:
        stream_id, found = await read_until_cut(http, tmp_path / "journal", first.kill)
        assert 20 <= len(indexes(found)) < len(LONG_ANSWER)
        found += await read(other, stream_id, last_index(found))
    assert text_of(found) == WHOLE
    assert indexes(found) == list(range(1, len(LONG_ANSWER) + 1))
    assert len((tmp_path / "journal").read_text().splitlines()) == 1, "the agent was asked once"


async def test_stream_continues_after_its_worker_was_killed(processes: Processes, tmp_path: Path) -> None:
    _, port = processes.start("api")
    worker, _ = processes.start("worker")
    await until_ready(port)

    def replace_worker() -> None:
        worker.kill()
        processes.start("worker")

    async with http_client(port) as http:
        stream_id, found = await read_until_cut(http, tmp_path / "journal", replace_worker)
        assert [event.data["attempt"] for event in found if event.data.get("reset")] == [2]
        assert found[-1].name == "done"
        assert text_of(found) == WHOLE
        assert text_of(await read(http, stream_id)) == WHOLE
        assert text_of(await read(http, stream_id, 25)) == WHOLE


async def test_stream_continues_after_api_and_worker_were_killed(processes: Processes, tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    first, port = processes.start("api", "--with-worker")
    second, other_port = processes.start("api", "--with-worker")
    await until_ready(port)
    await until_ready(other_port)
    async with http_client(port) as http, http_client(other_port) as other:
        stream_id, found = await read_until_cut(http, journal, first.kill)
        assert journal.read_text() == f"{first.process.pid} 1 started\n", "it ran where the connection was"
        found += await read(other, stream_id, last_index(found))
    assert text_of(found) == WHOLE
    assert [event.data["attempt"] for event in found if event.data.get("reset")] == [2]
    assert indexes(found) == sorted(set(indexes(found)))
    assert f"{second.process.pid} 2 started" in journal.read_text()


async def test_stream_runs_on_another_worker_when_the_local_one_is_full(processes: Processes, tmp_path: Path) -> None:
    processes.settings = processes.settings.model_copy(update={"max_concurrent_calls": 1})
    journal = tmp_path / "journal"
    api, port = processes.start("api", "--with-worker")
    worker, _ = processes.start("worker")
    await until_ready(port)
    await until(lambda: "worker polls" in worker.output(), 40)
    async with http_client(port) as http:
        both = await asyncio.gather(*(read_until_cut(http, journal, None) for _ in range(2)))
    assert [text_of(found) for _, found in both] == [WHOLE, WHOLE]
    pids = {int(line.split()[0]) for line in journal.read_text().splitlines()}
    assert pids == {api.process.pid, worker.process.pid}


async def test_stopping_api_asks_its_readers_to_reconnect(processes: Processes, tmp_path: Path) -> None:
    first, port = processes.start("api")
    _, other_port = processes.start("api")
    processes.start("worker")
    await until_ready(port)
    await until_ready(other_port)
    took: list[float] = []

    def stop() -> None:
        started_at = time.monotonic()
        assert first.terminate() == 0
        took.append(time.monotonic() - started_at)

    async with http_client(port) as http, http_client(other_port) as other:
        stream_id, found = await read_until_cut(http, tmp_path / "journal", stop)
        assert found.pop().name == "reconnect"
        assert took[0] < processes.settings.grace_seconds + 5
        found += await read(other, stream_id, last_index(found))
    assert text_of(found) == WHOLE
    assert indexes(found) == list(range(1, len(LONG_ANSWER) + 1))


async def test_stream_continues_after_all_processes_were_killed(tmp_path: Path) -> None:
    settings = make_settings(tmp_path)
    async with http_client(settings.port) as http:
        with sevenfold("dev", settings) as first:
            await until_ready(settings.port, process=first)

            def kill_all() -> None:
                for pid in (*children_of(first.process.pid), first.process.pid):
                    os.kill(pid, signal.SIGKILL)

            stream_id, found = await read_until_cut(http, tmp_path / "journal", kill_all)
            first.process.wait(10)
        with sevenfold("dev", settings) as second:
            await until_ready(settings.port, process=second)
            found += await read(http, stream_id, last_index(found))
            assert text_of(found) == WHOLE
            assert text_of(await read(http, stream_id)) == WHOLE


async def test_stream_continues_after_redis_was_killed(
    redis_stack: Stack, redis: RedisServer, tmp_path: Path
) -> None:
    def restart() -> None:
        redis.kill()
        asyncio.get_running_loop().call_later(1, redis.start)

    _, found = await read_until_cut(redis_stack.http, tmp_path / "journal", restart)
    assert found[-1].name == "done"
    assert text_of(found) == WHOLE
    assert indexes(found) == list(range(1, len(LONG_ANSWER) + 1)), "memory bridged it"


async def test_data_lost_by_redis_is_reported_to_the_reader(redis_stack: Stack, redis: RedisServer) -> None:
    stream_id = await started(redis_stack, agent="teller", params={"say": LONG_ANSWER})
    await redis_stack.run_until(stream_id, "completed")
    redis.kill()
    redis.start()
    for after in (0, 30):
        answer = await redis_stack.http.get(f"/api/agent/stream/{stream_id}", params={"after": after})
        assert answer.status_code == 410, answer.text
        assert answer.json()["type"] == "/problems/stream-gone"
    run = await redis_stack.run(stream_id)
    assert isinstance(run["result"], dict)
    assert run["result"]["response"] == WHOLE


async def test_unavailable_redis_is_503(redis_stack: Stack, redis: RedisServer) -> None:
    stream_id = await started(redis_stack, agent="teller", params={"say": LONG_ANSWER})
    await redis_stack.run_until(stream_id, "completed")
    redis.kill()
    answer = await redis_stack.http.get(f"/api/agent/stream/{stream_id}", params={"after": 3})
    assert answer.status_code == 503, answer.text
    assert int(answer.headers["Retry-After"]) > 0
    redis.start()


async def test_stalled_reader_does_not_delay_others(stack: Stack) -> None:
    # 20 MB: more than sockets hold, and far more than a tail keeps
    params = {"seconds": 1, "steps": 2_000, "size": 20_000_000 // 2}
    stream_id = await started(stack, agent="simulator", params=params)
    reader, writer = await asyncio.open_connection("127.0.0.1", stack.settings.port, limit=65_536)
    writer.write(f"GET /api/agent/stream/{stream_id} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    await reader.readuntil(b"\r\n\r\n")
    started_at = time.monotonic()
    neighbour = await read(stack.http, stream_id)
    assert len(text_of(neighbour)) == 10_000_000
    assert (await stack.run_until(stream_id, "completed"))["attempt"] == 1
    took = time.monotonic() - started_at
    assert took < 30
    # he comes back to life, and misses nothing
    raw = b""
    async with asyncio.timeout(60):
        while b"event: done" not in raw[-2_000:]:
            raw += await reader.read(65_536)
    writer.close()
    ids = [int(line[4:]) for line in raw.split(b"\n") if line.startswith(b"id: ") and not line.endswith(b"-end")]
    assert ids == list(range(1, 2_001))
    await until(lambda: stack.streams.last_index(f"default:{stream_id}") == 0)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://:secret-word@127.0.0.1:9/0", "does not answer"),
        ("http://:secret-word@127.0.0.1/", "does not begin with redis://"),
        ("nonsense-secret-word", "does not begin with redis://"),
    ],
)
def test_unusable_redis_url_is_reported_without_its_password(tmp_path: Path, url: str, expected: str) -> None:
    settings = make_settings(tmp_path)
    message = refused("dev", environment(settings, SEVENFOLD_REDIS_URL=url), tmp_path)
    assert "SEVENFOLD_REDIS_URL" in message
    assert expected in message
    assert "secret-word" not in message


def test_missing_redis_extra_names_what_to_install(tmp_path: Path) -> None:
    # As if the package were not there.
    (tmp_path / "redis.py").write_text("raise ModuleNotFoundError(\"No module named 'redis'\")")
    environ = environment(make_settings(tmp_path), SEVENFOLD_REDIS_URL="redis://127.0.0.1:9/0")
    message = refused("dev", {**environ, "PYTHONPATH": f"{tmp_path}:{ROOT}"}, tmp_path, imports_anew=True)
    assert "extra `redis`" in message
