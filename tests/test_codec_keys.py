"""Lost, wrong and rotated codec keys, with runs in flight."""

import asyncio
from pathlib import Path

import pytest

from sevenfold.api.app import create_app
from sevenfold.runtime.config.settings import Settings
from sevenfold.runtime.process.ports import bind
from sevenfold.runtime.temporal.connection import connect_temporal
from tests.support.codec_keys import key_setting, new_key
from tests.support.events import subscribed
from tests.support.receivers import SECRET, running_receiver
from tests.support.stack import (
    Stack,
    components_of,
    free_port,
    http_client,
    make_settings,
    running_stack,
    served,
    sevenfold,
    until_ready,
)

OLD, NEW = new_key("old"), new_key("new")
SECRETS = [key.partition(":")[2] for key in (OLD, NEW)]


def start_error(settings: Settings, *keys: str) -> str:
    """What a process with these keys prints when it does not start."""
    changed = settings.model_copy(update={"codec_keys": key_setting(*keys) if keys else None})
    with sevenfold("dev", changed) as process:
        assert process.process.wait(60) == 2, process.output()
        output = process.output()
    assert not any(secret in output for secret in SECRETS)
    return output


async def test_runs_wait_for_their_key_and_survive_a_rotation(tmp_path: Path) -> None:
    settings = make_settings(tmp_path, codec_keys=key_setting(OLD))
    body = {"task": "work", "agent": "quoting", "params": {"say": "still here", "seconds": 6}}
    with sevenfold("dev", settings) as process:
        await until_ready(settings.port, process=process)
        async with http_client(settings.port) as http:
            ended = (await http.post("/api/agent/query", json={"agent": "echo", "query": "old"})).json()["queryId"]
            run_id = (await http.post("/api/agent/tasks", json=body)).json()["taskId"]
            await asyncio.sleep(2)  # it is under way, and visible
        process.kill()
    assert "codec key old, which SEVENFOLD_CODEC_KEYS of this process does not contain" in start_error(settings)
    assert "(it has: new)" in start_error(settings, NEW)
    assert "codec key old in SEVENFOLD_CODEC_KEYS is not the one" in start_error(settings, new_key("old"))
    rotated = settings.model_copy(update={"codec_keys": key_setting(NEW, OLD)})
    with sevenfold("dev", rotated) as process:
        await until_ready(settings.port, process=process)
        async with http_client(settings.port) as http:
            async with asyncio.timeout(40):
                while (run := (await http.get(f"/api/agent/runs/{run_id}")).json())["status"] != "completed":
                    await asyncio.sleep(0.2)
            assert run["result"]["response"] == "still here"
            assert (await http.get(f"/api/agent/runs/{ended}")).json()["result"]["response"] == "old"
            new = await http.post("/api/agent/query", json={"agent": "echo", "query": "new"})
            assert new.json()["response"] == "new"


async def test_old_key_can_go_once_its_runs_have_ended(tmp_path: Path) -> None:
    """Registries have no end: a start with another first key encrypts them again. Older answers need the old key."""
    with_old = {"codec_keys": key_setting(OLD)}
    async with running_stack(tmp_path, **with_old) as stack:
        async with running_receiver() as receiver:
            webhook = {"webhookUrl": receiver.url("/old"), "webhookSecret": SECRET}
            ended = (await stack.query("old", agent="echo", **webhook)).json()["queryId"]
            await receiver.received("/old")
        await subscribed(stack, "kept", "k.kept")
        settings = stack.settings
        await asyncio.sleep(1.5)  # visibility lags
    ports = {name: getattr(settings, name) for name in ("port", "temporal_port", "temporal_ui_port")}
    async with running_stack(tmp_path, codec_keys=key_setting(NEW, OLD), **ports):
        await asyncio.sleep(3)
    async with running_stack(tmp_path, codec_keys=key_setting(NEW), **ports) as stack:
        kept = await stack.http.get("/api/agent/subscriptions/kept")
        assert kept.json()["task"] == "work"
        answer = await stack.http.get(f"/api/agent/runs/{ended}")
        assert answer.status_code == 503
        assert answer.json()["type"] == "/problems/codec-key-missing"
        assert "codec key old" in answer.json()["detail"]
        listed = await stack.http.get("/api/agent/runs")
        assert ended in [run["id"] for run in listed.json()["items"]], "one run hides no others"
        delivered = (await stack.http.get("/api/agent/webhooks/deliveries")).json()["items"]
        assert [one["runId"] for one in delivered] == [ended]
        assert "cannot be decoded" in delivered[0]["reason"]


@pytest.fixture(scope="module")
async def encrypted(tmp_path_factory: pytest.TempPathFactory):
    async with running_stack(tmp_path_factory.mktemp("encrypted"), codec_keys=key_setting(OLD)) as stack:
        yield stack


async def test_api_without_the_key_answers_503_until_it_has_it(encrypted: Stack) -> None:
    """Events too: without the subscriptions, they would get no reactions."""
    run_id = (await encrypted.query("hi", agent="echo")).json()["queryId"]
    await subscribed(encrypted, "there", "k.there")
    for keys in (None, key_setting(NEW), key_setting(new_key("old"))):
        settings = encrypted.settings.model_copy(update={"codec_keys": keys, "port": free_port()})
        async with connect_temporal(settings) as client:
            components = components_of(encrypted, client, codec_keys=keys)
            with bind(settings.host, settings.port, "SEVENFOLD_PORT") as sock:
                async with served(create_app(components), sock, settings), http_client(settings.port) as http:
                    answers = [
                        await http.get(f"/api/agent/runs/{run_id}"),
                        await http.get("/api/agent/subscriptions"),
                        await http.post(
                            "/api/agent/events",
                            json={"specversion": "1.0", "id": "1", "source": "/k", "type": "k.there"},
                        ),
                    ]
        for answer in answers:
            assert answer.status_code == 503, answer.text
            assert answer.json()["type"] == "/problems/codec-key-missing"
            assert answer.headers["Retry-After"] == "30"
    assert (await encrypted.run(run_id))["status"] == "completed"
