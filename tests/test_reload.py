"""`sevenfold dev --reload`: the gateway is replaced, Temporal and its runs stay."""

import asyncio
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from tests.support.processes import until
from tests.support.stack import Sevenfold, http_client, make_settings, sevenfold, until_ready

API = "/api/agent"

AGENT = """
import asyncio


async def answer(request):
    if request.query == "slow":
        await asyncio.sleep(600)
    return "{version}"


async def slow(request):
    if request.attempt > 1:
        return "{version}"
    await asyncio.sleep(600)
"""
CONFIG = "".join(f'[agents.{name}]\nkind = "python"\ntarget = "shop:{name}"\n' for name in ("answer", "slow"))


@contextmanager
def reloading(directory: Path) -> Iterator[tuple[Sevenfold, int]]:
    (directory / "shop.py").write_text(AGENT.format(version="old"))
    settings = make_settings(directory, more_config=CONFIG, grace_seconds=1)
    with sevenfold("dev", settings, "--reload") as process:
        yield process, settings.port


async def ask(http: httpx.AsyncClient) -> str:
    try:
        answered = await http.post(f"{API}/query", json={"query": "x", "agent": "answer"})
        return str(answered.json().get("response", answered.text))
    except httpx.TransportError:
        return ""


async def test_a_change_replaces_the_gateway_and_its_runs_go_on(tmp_path: Path) -> None:
    with reloading(tmp_path) as (process, port):
        async with http_client(port) as http:
            await until(lambda: "is ready" in process.output(), seconds=60)
            assert await ask(http) == "old"
            body = {"task": "work", "agent": "slow", "params": {"a": 1}}
            task = (await http.post(f"{API}/tasks", json=body)).json()["taskId"]
            await asyncio.sleep(1)
            (tmp_path / "shop.py").write_text(AGENT.format(version="new"))

            async def is_new() -> bool:
                return await ask(http) == "new"

            await until(is_new, seconds=60)
            assert "shop.py changed: the gateway starts again. Runs in flight have 1 s to end" in process.output()

            async def has_ended() -> bool:
                return bool((await http.get(f"{API}/runs/{task}")).json()["status"] == "completed")

            await until(has_ended, seconds=40)
            run = (await http.get(f"{API}/runs/{task}")).json()
            assert run["result"]["response"] == "new", "Temporal kept the run, and the new code repeated it"
            assert run["attempt"] >= 2


async def test_a_gateway_that_cannot_start_waits_for_the_next_change(tmp_path: Path) -> None:
    with reloading(tmp_path) as (process, port):
        async with http_client(port) as http:
            await until(lambda: "is ready" in process.output(), seconds=60)
            (tmp_path / "shop.py").write_text("def answer(:\n")
            await until(lambda: "ended with exit code 2. It starts again" in process.output(), seconds=60)
            assert "SyntaxError" in process.output()
            (tmp_path / "shop.py").write_text(AGENT.format(version="repaired"))

            async def is_repaired() -> bool:
                return await ask(http) == "repaired"

            await until(is_repaired, seconds=60)


async def test_its_end_ends_the_gateway_too(tmp_path: Path) -> None:
    with reloading(tmp_path) as (process, port):
        await until_ready(port, process=process)
        children = [
            int(pid)
            for pid in Path(f"/proc/{process.process.pid}/task/{process.process.pid}/children").read_text().split()
        ]
        assert len(children) == 2, "Temporal and the gateway"
        process.kill()
        await until(lambda: not any(map(is_alive, children)), seconds=30)


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


async def test_ctrl_c_during_a_drain_keeps_temporal_until_the_gateway_has_ended(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(AGENT.format(version="old"))
    settings = make_settings(tmp_path, more_config=CONFIG, grace_seconds=4)
    with sevenfold("dev", settings, "--reload") as process:
        await until_ready(settings.port, process=process)
        async with http_client(settings.port) as http:
            body = {"task": "work", "agent": "slow", "params": {"a": 1}}
            assert (await http.post(f"{API}/tasks", json=body)).status_code == 202
        pid = process.process.pid
        children = [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
        await asyncio.sleep(1)
        (tmp_path / "shop.py").write_text(AGENT.format(version="new"))
        await until(lambda: "shop.py changed" in process.output(), seconds=20)
        await asyncio.sleep(1)
        process.process.send_signal(signal.SIGINT)
        assert await asyncio.to_thread(process.process.wait, 40) == 0
        assert not any(map(is_alive, children)), "none is left behind"


async def test_ctrl_c_stops_everything(tmp_path: Path) -> None:
    with reloading(tmp_path) as (process, port):
        await until_ready(port, process=process)
        process.process.send_signal(signal.SIGINT)
        assert await asyncio.to_thread(process.process.wait, 40) == 0
        async with http_client(port) as http:
            assert await ask(http) == ""
