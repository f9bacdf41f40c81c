"""Webhooks on bad days: a worker killed between POST and record, everything killed; and secrets, everywhere."""

import asyncio
import base64
import os
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from sevenfold.contracts.identity import parse_public_id
from sevenfold.contracts.webhooks.delivery import delivery_workflow_id
from tests.support.processes import EmbeddedTemporalOnly
from tests.support.receivers import SECRET, Send, running_receiver, simple
from tests.support.stack import http_client, make_settings, running_stack, sevenfold, until_ready

KEY = base64.b64encode(os.urandom(32)).decode()
PLANTED = "whsec_cGxhbnRlZC1zZWNyZXQtdGhhdC1ub2JvZHktbWF5LXJlYWQ"


async def test_worker_killed_after_the_post_delivers_again_with_the_same_id(tmp_path: Path) -> None:
    settings = make_settings(tmp_path, secret_key=KEY)
    path = "/api/agent/analyze"
    async with EmbeddedTemporalOnly(settings) as address, http_client(settings.port) as http:
        with ExitStack() as processes:
            env = {"TEMPORAL_ADDRESS": address}
            processes.enter_context(sevenfold("api", settings, **env))
            worker = processes.enter_context(sevenfold("worker", settings, **env))
            await until_ready(settings.port)

            async def kills(send: Send) -> None:
                worker.kill()
                await simple(200)(send)

            async with running_receiver([kills]) as receiver:
                body = {"document": "text", "webhookUrl": receiver.url(), "webhookSecret": SECRET}
                answer = await http.post(path, json=body)
                assert answer.status_code == 202, answer.text
                await receiver.received("/")
                processes.enter_context(sevenfold("worker", settings, **env))
                first, second = await receiver.received("/", 2, seconds=60)
                assert first.id == second.id
                assert first.body == second.body
                for post in (first, second):
                    post.check()


async def test_waiting_delivery_survives_the_death_of_all_processes(tmp_path: Path) -> None:
    settings = make_settings(tmp_path, webhook_schedule=(0, 6))
    async with running_receiver([500]) as receiver, http_client(settings.port) as http:
        with sevenfold("dev", settings) as dev:
            await until_ready(settings.port, process=dev)
            body = {"document": "text", "webhookUrl": receiver.url(), "webhookSecret": SECRET}
            task_id = (await http.post("/api/agent/analyze", json=body)).json()["taskId"]
            await receiver.received("/")
            await asyncio.sleep(1)
            dev.kill()
        with sevenfold("dev", settings) as dev:
            await until_ready(settings.port, process=dev)
            first, second = await receiver.received("/", 2, seconds=60)
            assert first.id == second.id
            second.check()  # the key is kept beside the database
            async with asyncio.timeout(20):
                while (await http.get(f"/api/agent/runs/{task_id}")).json()["webhook"]["state"] != "delivered":
                    await asyncio.sleep(0.1)


async def test_without_a_sealing_key_webhook_secrets_are_refused(tmp_path: Path) -> None:
    settings = make_settings(tmp_path)
    async with EmbeddedTemporalOnly(settings) as address, http_client(settings.port) as http:
        with sevenfold("api", settings, "--with-worker", TEMPORAL_ADDRESS=address):
            await until_ready(settings.port)
            body = {"query": "hi", "agent": "echo", "webhookUrl": "https://example.com/", "webhookSecret": PLANTED}
            answer = await http.post("/api/agent/query", json=body)
            assert answer.status_code == 422
            assert "SEVENFOLD_SECRET_KEY" in answer.json()["detail"]
            assert PLANTED not in answer.text


def hidden_in(data: bytes) -> bool:
    """Whether the planted secret is there, as it is or as base64 would hold it."""
    forms = [PLANTED.encode(), PLANTED.encode()[6:], base64.b64decode(PLANTED[6:] + "=")]
    forms += [base64.b64encode(b" " * shift + PLANTED.encode())[8:-8] for shift in range(3)]
    return any(form in data for form in forms)


async def test_webhook_secret_appears_nowhere_in_storage_or_logs(tmp_path: Path) -> None:
    """Histories, memos, what the UI shows, the database, the payload directory, logs, answers and problems."""
    assert hidden_in(f"x{PLANTED}".encode())
    assert hidden_in(base64.b64encode(f'{{"a":"{PLANTED}"}}'.encode()))
    texts: list[str] = []
    async with running_receiver([500, 204]) as receiver:
        settings = make_settings(tmp_path, log_level="debug")
        with sevenfold("dev", settings, "--ui") as dev:
            await until_ready(settings.port, process=dev)
            async with http_client(settings.port) as http:

                async def call(method: str, path: str, body: Any = None) -> Any:
                    answer = await http.request(method, f"/api/agent/{path}", json=body)
                    texts.append(answer.text + str(answer.headers))
                    return answer.json()

                webhook = {"webhookUrl": receiver.url(), "webhookSecret": PLANTED}
                task = await call("POST", "analyze", {"document": "text", **webhook})
                await call("POST", "analyze", {"document": {"base64": "!"}, **webhook})
                await call("POST", "analyze", {"document": "text", "webhookUrl": "ftp://x", "webhookSecret": PLANTED})
                await call("POST", "query", {"query": 5, **webhook, "previousWebhookSecret": [PLANTED]})
                await receiver.received("/", 2)
                delivery_id = parse_public_id(delivery_workflow_id(f"default:{task['taskId']}"))
                async with asyncio.timeout(20):
                    while (await call("GET", f"webhooks/deliveries/{delivery_id}"))["state"] != "delivered":
                        await asyncio.sleep(0.1)
                for path in (f"runs/{task['taskId']}", "runs", "webhooks/deliveries"):
                    await call("GET", path)
                ui = f"http://127.0.0.1:{settings.temporal_ui_port}/api/v1/namespaces/default/workflows"
                for workflow in (task["taskId"], delivery_id):
                    history = await http.get(f"{ui}/default:{workflow}/history")
                    assert history.status_code == 200
                    texts.append(history.text)
            texts.append(dev.output())
            dev.terminate()
    receiver.posts[1].check(PLANTED)
    assert not any(hidden_in(text.encode()) for text in texts)
    kept = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any(path.stat().st_size > 100_000 for path in kept), "the database is among them"
    assert [path for path in kept if hidden_in(path.read_bytes())] == []


async def test_waiting_delivery_is_signed_after_key_rotation(tmp_path: Path) -> None:
    """A delivery whose key is lost reports it and is kept."""
    lost, kept = (base64.b64encode(bytes([number] * 32)).decode() for number in (1, 2))
    async with running_receiver([500]) as receiver:
        settings = make_settings(tmp_path, secret_key=lost, webhook_schedule=(0, 8, 3))
        async with running_stack(tmp_path, **settings.model_dump()) as stack:
            body = {"document": "text", "webhookUrl": receiver.url(), "webhookSecret": SECRET}
            task_id = (await stack.http.post("/api/agent/analyze", json=body)).json()["taskId"]
            await receiver.received("/")
        async with running_stack(tmp_path, **{**settings.model_dump(), "secret_key": kept}) as stack:
            async with asyncio.timeout(30):
                while True:
                    delivery_id = parse_public_id(delivery_workflow_id(f"default:{task_id}"))
                    path = f"/api/agent/webhooks/deliveries/{delivery_id}"
                    log = (await stack.http.get(path)).json()["log"]
                    if len(log) > 1:
                        break
                    await asyncio.sleep(0.1)
            assert "which SEVENFOLD_SECRET_KEY does not contain" in log[1]["error"]
        async with running_stack(tmp_path, **{**settings.model_dump(), "secret_key": f"{kept},{lost}"}) as stack:
            await stack.http.post(f"{path}/redeliver")
            _, post, *_ = await receiver.received("/", 2)
            post.check()
