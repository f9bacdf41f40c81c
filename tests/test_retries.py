"""Runs that have failed or were cancelled, and are started again."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from bench.server_sent_events import events as stream_events
from tests.support.fork_server import run_sevenfold
from tests.support.processes import until
from tests.support.receivers import SECRET, running_receiver
from tests.support.stack import Stack, running_stack

API = "/api/agent"

AGENT = """
import asyncio
from pathlib import Path
from sevenfold import AgentRejected, Delta, Reply

async def agent(request):
    yield Delta(text="so ")
    if request.params.get("waits"):
        await asyncio.sleep(60)
    if not Path(request.params["flag"]).exists():
        raise AgentRejected("not today")
    yield Delta(text="far")
    yield Reply(response="so far")
"""


@pytest.fixture(scope="module")
async def sulky(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    directory = tmp_path_factory.mktemp("sulky")
    (directory / "sulky.py").write_text(AGENT)
    config = '[agents.sulky]\nkind = "python"\ntarget = "sulky:agent"\ncircuit = { enabled = false }\n'
    async with running_stack(directory, more_config=config) as stack:
        yield stack


STARTS: dict[str, tuple[str, dict[str, Any]]] = {
    "synchronous": ("/query", {"query": "x"}),
    "queue": ("/jobs", {"task": "t", "data": {"question": "x"}}),
    "queue-items": ("/jobs", {"task": "t", "data": {"items": [1, 2, 3]}, "maxFailures": 0}),
    "polling": ("/tasks", {"task": "t"}),
    "webhook": ("/analyze", {"document": "a text to analyze"}),
    "streaming": ("/stream", {"query": "x"}),
    "hybrid": ("/hybrid", {"query": "x"}),
}


async def start_failing(stack: Stack, pattern: str, flag: Path, **more: Any) -> str:
    path, body = STARTS[pattern]
    key = {"Idempotency-Key": f"{pattern}-{flag}"}
    body = {**body, "agent": "sulky", "params": {"flag": str(flag)}, **more}
    answered = await stack.http.post(f"{API}{path}", json=body, headers=key)
    assert answered.status_code in (200, 202, 502), answered.text
    if pattern == "streaming":
        return answered.headers["x-stream-id"]
    found = answered.json()
    return str(
        next(
            found[name] for name in ("runId", "jobId", "taskId", "analysisId", "hybridId", "queryId") if name in found
        )
    )


async def retry(stack: Stack, run_id: str) -> int:
    return (await stack.http.post(f"{API}/runs/{run_id}/retry")).status_code


@pytest.mark.parametrize("pattern", STARTS)
async def test_a_failed_run_is_retried_under_its_own_id(pattern: str, sulky: Stack, tmp_path: Path) -> None:
    flag = tmp_path / "well"
    async with running_receiver() as receiver:
        webhook = {"webhookUrl": receiver.url("/hook"), "webhookSecret": SECRET}
        run_id = await start_failing(sulky, pattern, flag, **webhook)
        await sulky.run_until(run_id, "failed")
        await until(lambda: len(receiver.at("/hook")) == 1, 20)
        flag.touch()
        assert await retry(sulky, run_id) == 202
        run = await sulky.run_until(run_id, "completed")
        assert run["error"] is None
        assert run["result"]["response"] == ("3 of 3 items completed." if pattern == "queue-items" else "so far")
        await until(lambda: len(receiver.at("/hook")) == 2, 20)
        first, second = receiver.at("/hook")
        assert (first.json["status"], second.json["status"]) == ("failed", "completed")
        assert first.headers["webhook-id"] != second.headers["webhook-id"]
    refused = await sulky.http.post(f"{API}/runs/{run_id}/retry")
    assert (refused.status_code, refused.json()["type"].rpartition("/")[2]) == (
        409,
        "run-completed",
    )
    assert await start_failing(sulky, pattern, flag, **webhook) == run_id, "its key still finds it"
    if pattern == "queue-items":
        lines = (await sulky.http.get(f"{API}/jobs/{run_id}/results")).text.splitlines()
        assert len(lines) == 3


async def test_a_reader_of_the_failed_stream_gets_a_reset(sulky: Stack, tmp_path: Path) -> None:
    run_id = await start_failing(sulky, "streaming", tmp_path / "well")
    await sulky.run_until(run_id, "failed")
    (tmp_path / "well").touch()
    assert await retry(sulky, run_id) == 202
    await sulky.run_until(run_id, "completed")
    path = f"{API}/stream/{run_id}"
    async with sulky.http.stream("GET", path, headers={"Last-Event-ID": "1"}) as answer:
        read = [one.data async for one in stream_events(answer)]
    assert any(one.get("reset") for one in read)
    assert "".join(one.get("chunk", "") for one in read) == "so far"


async def test_an_open_run_is_left_alone_and_a_cancelled_one_retried(sulky: Stack, tmp_path: Path) -> None:
    body = {"task": "t", "agent": "sulky", "params": {"flag": str(tmp_path), "waits": True}}
    run_id = (await sulky.http.post(f"{API}/tasks", json=body)).json()["taskId"]
    assert await retry(sulky, run_id) == 200
    assert (await sulky.http.post(f"{API}/runs/{run_id}/cancel")).status_code in (200, 202)
    await sulky.run_until(run_id, "cancelled")
    assert await retry(sulky, run_id) == 202
    await sulky.run_until(run_id, "processing")
    await sulky.http.post(f"{API}/runs/{run_id}/cancel")
    assert await retry(sulky, "qry_" + "a" * 26) == 404


async def test_many_retries_at_once_start_one(sulky: Stack, tmp_path: Path) -> None:
    run_id = await start_failing(sulky, "polling", tmp_path / "well")
    await sulky.run_until(run_id, "failed")
    answers = sorted(await asyncio.gather(*(retry(sulky, run_id) for _ in range(8))))
    assert 202 in answers
    assert set(answers) <= {200, 202}
    await sulky.run_until(run_id, "failed")
    generations = (await sulky.temporal.get_workflow_handle(f"default:{run_id}").describe()).memo
    assert (await generations())["generation"] <= 1 + answers.count(202)


async def test_a_poll_that_had_the_failure_gets_the_new_result(sulky: Stack, tmp_path: Path) -> None:
    flag = tmp_path / "well"
    run_id = await start_failing(sulky, "polling", flag)
    path = f"{API}/tasks/{run_id}"

    async def polled() -> str:
        return str((await sulky.http.get(path)).json()["status"])

    async def has(status: str) -> bool:
        return await polled() == status

    await until(lambda: has("failed"), 20)
    flag.touch()
    assert await retry(sulky, run_id) == 202
    await until(lambda: has("completed"), 20)


async def test_the_command_retries_what_a_filter_finds(sulky: Stack, tmp_path: Path) -> None:
    flag = tmp_path / "well"
    runs = [await start_failing(sulky, "polling", tmp_path / name / "x", task="by-filter") for name in "ab"]
    for run_id in runs:
        await sulky.run_until(run_id, "failed")
    url = ("--url", f"http://127.0.0.1:{sulky.settings.port}")

    async def command(*arguments: str) -> Any:
        return await asyncio.to_thread(run_sevenfold, "runs", "retry", *arguments, *url)

    async def is_listed() -> bool:
        return "2 runs fit" in (await command("--task", "by-filter")).stderr

    await until(is_listed, 20)
    done = await command("--task", "by-filter", "--yes")
    assert done.returncode == 0, done.stderr
    assert {line.partition(":")[0] for line in done.stdout.splitlines()} == set(runs)
    assert "Name runs" in (await command()).stderr
    assert "No run fits" in (await command("--task", "nobodys")).stdout
    assert "failed or cancelled" in (await command("--task", "x", "--status", "completed")).stderr
    flag.touch()


async def test_a_retried_run_is_listed_once(sulky: Stack, tmp_path: Path) -> None:
    flag = tmp_path / "well"
    run_id = await start_failing(sulky, "polling", flag, task="listed-once")
    await sulky.run_until(run_id, "failed")
    assert await retry(sulky, run_id) == 202
    await sulky.run_until(run_id, "failed")
    flag.touch()
    assert await retry(sulky, run_id) == 202
    await sulky.run_until(run_id, "completed")

    async def listed() -> list[dict[str, Any]]:
        found = await sulky.http.get(f"{API}/runs", params={"task": "listed-once"})
        return list(found.json()["items"])

    await until(lambda: listed(), 20)
    assert [(one["id"], one["status"]) for one in await listed()] == [(run_id, "completed")]
    failed = await sulky.http.get(f"{API}/runs", params={"task": "listed-once", "status": "failed"})
    assert failed.json()["items"] == []


async def test_a_reader_at_the_old_end_gets_what_the_retry_wrote(sulky: Stack, tmp_path: Path) -> None:
    flag = tmp_path / "well"
    run_id = await start_failing(sulky, "streaming", flag)
    await sulky.run_until(run_id, "failed")
    flag.touch()
    await retry(sulky, run_id)
    await sulky.run_until(run_id, "completed")
    path, last = f"{API}/stream/{run_id}", "1-end"
    for _ in range(2):
        async with sulky.http.stream("GET", path, headers={"Last-Event-ID": last}) as answer:
            if answer.status_code == 204:
                break
            read = [one async for one in stream_events(answer)]
            assert "".join(one.data.get("chunk", "") for one in read) == "so far"
            last = str(read[-1].id)
    else:
        raise AssertionError("a reader that has everything reads it again")
    assert last.endswith("-end")


async def test_a_long_poll_right_after_the_retry_waits(sulky: Stack, tmp_path: Path) -> None:
    flag = tmp_path / "well"
    run_id = await start_failing(sulky, "polling", flag)
    await sulky.run_until(run_id, "failed")
    path = f"{API}/tasks/{run_id}"
    assert (await sulky.http.get(path)).json()["status"] == "failed"
    flag.touch()
    assert await retry(sulky, run_id) == 202
    assert (await sulky.http.get(path)).json()["status"] in ("processing", "completed")


async def test_a_run_that_is_being_cancelled_is_not_retried(sulky: Stack, tmp_path: Path) -> None:
    body = {"task": "t", "agent": "sulky", "params": {"flag": str(tmp_path), "waits": True}}
    run_id = (await sulky.http.post(f"{API}/tasks", json=body)).json()["taskId"]
    await sulky.run_until(run_id, "processing")
    await sulky.http.post(f"{API}/runs/{run_id}/cancel")
    answers = {await retry(sulky, run_id) for _ in range(3)}
    assert answers <= {409, 202, 200}
    assert 200 not in answers or 202 in answers, "a cancelled run is not reported as open"


async def test_the_command_goes_on_after_a_refusal(sulky: Stack, tmp_path: Path) -> None:
    flag = tmp_path / "well"
    flag.touch()
    done = await start_failing(sulky, "polling", flag)
    await sulky.run_until(done, "completed")
    failed = await start_failing(sulky, "polling", tmp_path / "never")
    await sulky.run_until(failed, "failed")
    url = ("--url", f"http://127.0.0.1:{sulky.settings.port}")
    ran = await asyncio.to_thread(run_sevenfold, "runs", "retry", done, failed, *url)
    assert ran.returncode == 1
    assert f"{done}: The run has completed" in ran.stderr
    assert failed in ran.stdout
