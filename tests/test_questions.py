"""Questions that agents ask people: open, answered, declined, expired, in every pattern."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from bench.server_sent_events import events as stream_events
from sevenfold.contracts.agents.questions import QUESTIONS_MEMO
from tests.support.fork_server import run_sevenfold
from tests.support.processes import until
from tests.support.stack import Stack, running_stack

API = "/api/agent"
AGENTS = ("asker", "plain")
CONFIG = "".join(
    f'[agents.{prefix}{name}]\nkind = "python"\ntarget = "tests.support.durable_agents:{name}"\n'
    f"circuit = {{ enabled = false }}\n{more}"
    for prefix, more in (("", ""), ("isolated-", 'isolation = "process"\n'))
    for name in AGENTS
)


@pytest.fixture(scope="module")
async def asking(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    directory = tmp_path_factory.mktemp("asking")
    (directory / "tests").symlink_to(Path(__file__).parent)
    async with running_stack(directory, more_config=CONFIG + "[interactions]\nenabled = true\n") as stack:
        yield stack


async def asked(stack: Stack, log: Path, *, agent: str = "asker", **params: Any) -> str:
    """Starts a task, and returns its id when it asks."""
    body = {"task": "t", "agent": agent, "params": {"log": str(log), **params}, "timeout": 20}
    run_id = str((await stack.http.post(f"{API}/tasks", json=body)).json()["taskId"])
    await stack.run_until(run_id, "input_required")
    return run_id


async def read(stack: Stack, run_id: str) -> dict[str, Any]:
    return dict((await stack.http.get(f"{API}/runs/{run_id}")).json())


async def respond(stack: Stack, run_id: str, **responses: Any) -> tuple[int, dict[str, Any]]:
    """Answers: a dict is a whole response, anything else the accepted content."""
    given = {
        key.replace("_", "-"): one if isinstance(one, dict) else {"action": "accept", "content": one}
        for key, one in responses.items()
    }
    answer = await stack.http.post(f"{API}/runs/{run_id}/responses", json={"responses": given})
    return answer.status_code, answer.json()


@pytest.mark.parametrize("agent", ["asker", "isolated-asker"])
async def test_a_run_waits_for_its_answer_without_an_activity(agent: str, asking: Stack, tmp_path: Path) -> None:
    run_id = await asked(asking, tmp_path / "log", agent=agent)
    run = await read(asking, run_id)
    (request,) = run["requests"]
    assert (request["id"], request["message"], request["responseSchema"]) == ("may-i", "May I?", {"type": "boolean"})
    assert datetime.fromisoformat(request["expiresAt"]) - datetime.now(UTC) > timedelta(days=6)
    assert "/approvals/" in request["url"]
    description = await asking.temporal.get_workflow_handle(f"default:{run_id}").describe()
    assert not description.raw_description.pending_activities, "no slot is held"
    status, answered = await respond(asking, run_id, may_i=True)
    assert (status, answered["id"]) == (200, run_id)
    run = await asking.run_until(run_id, "completed")
    assert run["result"]["data"] == {"answer": True, "turn": 2, "attempt": 1}  # type: ignore[index]
    assert (tmp_path / "log").read_text() == "prepare\n", "the step before the question was not executed again"


@pytest.mark.parametrize("agent", ["plain", "isolated-plain"])
async def test_a_plain_function_asks_too(agent: str, asking: Stack, tmp_path: Path) -> None:
    run_id = await asked(asking, tmp_path / "log", agent=agent, asks=True)
    assert (await respond(asking, run_id, really=False))[0] == 200
    run = await asking.run_until(run_id, "completed", "failed")
    assert run["result"]["data"]["answer"] is False  # type: ignore[index]


async def test_several_questions_are_asked_at_once(asking: Stack, tmp_path: Path) -> None:
    run_id = await asked(asking, tmp_path / "log", both=True)
    assert [one["id"] for one in (await read(asking, run_id))["requests"]] == ["left", "right"]
    status, run = await respond(asking, run_id, right=7)
    assert (status, [one["id"] for one in run["requests"]]) == (200, ["left"])
    assert (await respond(asking, run_id, left=True))[0] == 200
    run = await asking.run_until(run_id, "completed")
    assert run["result"]["data"] == {"answers": [True, 7], "turn": 2}


async def test_answers_are_checked_and_refused(asking: Stack, tmp_path: Path) -> None:
    schema = {
        "type": "object",
        "properties": {"mail": {"$ref": "#/$defs/mail"}, "count": {"anyOf": [{"type": "integer"}, {"type": "null"}]}},
        "$defs": {"mail": {"type": "string", "format": "email"}},
        "required": ["mail"],
        "additionalProperties": False,
    }
    run_id = await asked(asking, tmp_path / "log", schema=schema)
    handle = asking.temporal.get_workflow_handle(f"default:{run_id}")
    before = (await handle.describe()).history_length
    wrong = {"mail": "no mail", "count": "x", "more": 1}
    status, problem = await respond(asking, run_id, may_i={"action": "accept", "content": wrong})
    assert status == 422
    pointers = {one["pointer"] for one in problem["errors"]}
    assert pointers == {
        "/responses/may-i/content",
        "/responses/may-i/content/mail",
        "/responses/may-i/content/count",
    }
    assert (await respond(asking, run_id, other=True))[0] == 404
    for odd in ({}, {"responses": {}}, {"responses": {"may-i": {"action": "maybe"}}}, {"responses": {"may i": 1}}):
        assert (await asking.http.post(f"{API}/runs/{run_id}/responses", json=odd)).status_code == 422, odd
    assert (await handle.describe()).history_length == before, "a refused answer leaves nothing in the history"
    right = {"action": "accept", "content": {"mail": "ada@example.com", "count": None}}
    assert (await respond(asking, run_id, may_i=right))[0] == 200
    await asking.run_until(run_id, "completed")


async def test_the_same_answer_again_is_fine_and_another_is_not(asking: Stack, tmp_path: Path) -> None:
    run_id = await asked(asking, tmp_path / "log", both=True)
    answers = await asyncio.gather(*(respond(asking, run_id, left=value) for value in (True, True, False, True)))
    statuses = sorted(status for status, _ in answers)
    assert statuses in ([200, 200, 200, 409], [200, 409, 409, 409])
    taken = 200 if statuses.count(200) == 3 else 409
    assert (await respond(asking, run_id, left=True))[0] == taken
    status, problem = await respond(asking, run_id, left={"action": "decline"})
    assert (status, problem["type"]) == (409, "/problems/question-answered")
    await respond(asking, run_id, right=1)
    await asking.run_until(run_id, "completed")
    assert (await respond(asking, run_id, right=2))[0] == 409


@pytest.mark.parametrize(
    ("params", "action", "response"),
    [({}, "decline", "Declined"), ({}, "cancel", "Declined"), ({"expires": 1.5}, None, "Expired")],
)
async def test_a_question_that_nobody_accepts_raises(
    params: dict[str, Any], action: str | None, response: str, asking: Stack, tmp_path: Path
) -> None:
    run_id = await asked(asking, tmp_path / "log", **params)
    if action is not None:
        assert (await respond(asking, run_id, may_i={"action": action}))[0] == 200
    run = await asking.run_until(run_id, "completed", seconds=30)
    assert run["result"]["response"] == response  # type: ignore[index]


async def test_a_default_answers_for_nobody(asking: Stack, tmp_path: Path) -> None:
    run_id = await asked(asking, tmp_path / "log", expires=1.5, default="nobody")
    run = await asking.run_until(run_id, "completed", seconds=30)
    assert run["result"]["data"]["answer"] == "nobody"  # type: ignore[index]


async def test_the_timeout_rests_while_people_are_asked(asking: Stack, tmp_path: Path) -> None:
    body = {"task": "t", "agent": "asker", "params": {"log": str(tmp_path / "log")}, "timeout": 2}
    run_id = (await asking.http.post(f"{API}/tasks", json=body)).json()["taskId"]
    await asking.run_until(run_id, "input_required")
    await asyncio.sleep(3)
    assert (await read(asking, run_id))["status"] == "input_required"
    await respond(asking, run_id, may_i=True)
    run = await asking.run_until(run_id, "completed", "failed")
    assert run["status"] == "completed"
    seconds = float(str(run["result"]["processingTime"]).rstrip("s"))  # type: ignore[index]
    assert seconds < 2, "the time in which people are asked is not the agent's"


async def test_a_retried_attempt_keeps_question_and_answer(asking: Stack, tmp_path: Path) -> None:
    run_id = await asked(asking, tmp_path / "log", fails=True)
    await respond(asking, run_id, may_i=True)
    run = await asking.run_until(run_id, "completed")
    assert run["result"]["data"] == {"answer": True, "turn": 2, "attempt": 2}  # type: ignore[index]
    assert (tmp_path / "log").read_text() == "prepare\n"


@pytest.mark.parametrize("pattern", ["query", "hybrid"])
async def test_a_client_that_waits_gets_the_question(pattern: str, asking: Stack, tmp_path: Path) -> None:
    body = {"query": "x", "agent": "asker", "params": {"log": str(tmp_path / "log")}}
    answer = await asking.http.post(f"{API}/{pattern}", json=body, headers={"Prefer": "wait=30"})
    assert answer.status_code == 202
    found = answer.json()
    assert found["status"] == "input_required"
    assert found["requests"][0]["id"] == "may-i"
    run_id = found["queryId" if pattern == "query" else "hybridId"]
    await respond(asking, run_id, may_i=True)
    await asking.run_until(run_id, "completed")


async def test_a_stream_says_so_and_goes_on_without_a_reset(asking: Stack, tmp_path: Path) -> None:
    body = {"query": "x", "agent": "asker", "params": {"log": str(tmp_path / "log")}}
    seen: list[tuple[str | None, dict[str, Any]]] = []
    async with asking.http.stream("POST", f"{API}/stream", json=body) as answer:
        run_id = answer.headers["x-stream-id"]
        async for one in stream_events(answer):
            seen.append((one.name, one.data))
            if one.name == "input_required":
                assert one.data["inputRequired"][0]["id"] == "may-i"
                status, found = await respond(asking, run_id, may_i=True)
                assert status == 200, found
    assert [event for event, _ in seen if event in ("input_required", "done")] == ["input_required", "done"]
    assert not any(data.get("reset") for _, data in seen)
    assert "".join(str(data.get("chunk", "")) for _, data in seen) == "thinking got True"
    async with asking.http.stream("GET", f"{API}/stream/{run_id}", headers={"Last-Event-ID": "1"}) as answer:
        later = [one.data async for one in stream_events(answer)]
    assert "".join(str(data.get("chunk", "")) for data in later) == "got True"


async def test_what_waits_is_listed_and_published(asking: Stack, tmp_path: Path) -> None:
    run_id = await asked(asking, tmp_path / "log")

    async def listed(**filters: str) -> list[str]:
        found = await asking.http.get(f"{API}/approvals", params={"status": "open", **filters})
        return [one["runId"] for one in found.json()["items"]]

    await until(lambda: listed(), 20)
    assert run_id in await listed(agent="asker", task="t")
    assert run_id not in await listed(agent="plain")
    assert await listed(createdBefore="2026-01-01T00:00:00Z") == []
    shown = await asyncio.to_thread(
        run_sevenfold, "runs", "show", run_id, "--url", f"http://127.0.0.1:{asking.settings.port}"
    )
    assert "asks may-i: May I?" in shown.stdout
    assert "step prepare: completed" in shown.stdout
    runs = (await asking.http.get(f"{API}/runs", params={"status": "input_required"})).json()["items"]
    assert run_id in [one["id"] for one in runs]
    polled = (await asking.http.get(f"{API}/tasks/{run_id}")).json()
    assert (polled["status"], polled["requests"][0]["id"]) == ("input_required", "may-i")

    async def published() -> list[dict[str, Any]]:
        found = (await asking.http.get(f"{API}/events?source=/sevenfold/runs")).json()["items"]
        return [one["event"] for one in found if one["event"]["type"] == "run.input_required"]

    await until(lambda: published(), 20)
    event = next(one for one in await published() if one["data"]["runId"] == run_id)
    assert event["data"]["questions"] == ["may-i"]
    assert "May I" not in json.dumps(event), "what is asked is nobody else's business"
    await asking.http.post(f"{API}/runs/{run_id}/cancel")
    await asking.run_until(run_id, "cancelled")
    assert (await read(asking, run_id))["requests"] is None
    assert (await respond(asking, run_id, may_i=True))[0] == 409


async def test_an_operator_answers_in_temporal(asking: Stack, tmp_path: Path) -> None:
    """As `temporal workflow update execute --name respond` does: with plain JSON."""
    run_id = await asked(asking, tmp_path / "log")
    handle = asking.temporal.get_workflow_handle(f"default:{run_id}")
    assert QUESTIONS_MEMO in await (await handle.describe()).memo()
    left = await handle.execute_update("respond", {"responses": {"may-i": {"action": "accept", "content": True}}})
    assert left == []
    await asking.run_until(run_id, "completed")
