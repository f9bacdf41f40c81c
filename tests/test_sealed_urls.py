"""URLs of webhooks and documents are sealed: no history holds them, and no answer shows their query."""

import asyncio
from pathlib import Path

import pytest

from sevenfold.adapters.webhooks.sealed_urls import origin_url, redact_url
from tests.support.events import SUBSCRIPTIONS, event, published, subscribed
from tests.support.raw_store import raw_histories, spellings
from tests.support.receivers import SECRET, running_receiver, simple
from tests.support.stack import Stack, http_client, make_settings, running_stack, sevenfold, until_ready

DELIVERIES = "/api/agent/webhooks/deliveries"
PLANTED = "Planted7ZqToken"


@pytest.mark.parametrize(
    ("url", "shown", "origin"),
    [
        ("https://a.example/hook?token=1#x", "https://a.example/hook?***", "https://a.example/"),
        ("https://user:pw@a.example:8443/", "https://***@a.example:8443/", "https://a.example:8443/"),
        ("http://[::1]:80/a?b", "http://[::1]:80/a?***", "http://[::1]:80/"),
    ],
)
def test_urls_are_redacted(url: str, shown: str, origin: str) -> None:
    assert redact_url(url) == shown
    assert origin_url(url) == origin


async def test_urls_stand_in_no_history_and_no_answer(tmp_path: Path) -> None:
    """Without codec keys."""
    async with running_stack(tmp_path) as stack, running_receiver() as receiver:
        receiver.by_path["/document"] = simple(200, ("content-type", "text/plain"), body=b"A good text.")
        body = {
            "document": f"{receiver.url('/document')}?sig={PLANTED}",
            "webhookUrl": f"{receiver.url('/hook')}?token={PLANTED}",
            "webhookSecret": SECRET,
        }
        task = (await stack.http.post("/api/agent/analyze", json=body)).json()["taskId"]
        (post,) = await receiver.received("/hook")
        post.check()
        assert post.json["status"] == "completed"
        webhook = {"webhookUrl": f"{receiver.url('/reaction')}?token={PLANTED}", "webhookSecret": SECRET}
        await subscribed(stack, "sealed", "s.created", **webhook)
        await published(stack.http, event("s.created", {"key": 1}))
        await receiver.received("/reaction")
        shown = [
            (await stack.http.get(path)).text
            for path in (f"{SUBSCRIPTIONS}/sealed", SUBSCRIPTIONS, f"/api/agent/runs/{task}", DELIVERIES)
        ]
        assert f"{receiver.url('/reaction')}?***" in shown[0]
        assert not any(PLANTED in text for text in shown)
        assert await planted_in_histories(stack) == []


async def planted_in_histories(stack: Stack) -> list[str]:
    """The ids of workflows whose history, memo or description holds the planted text."""
    await asyncio.sleep(2)  # visibility lags
    found = []
    async for workflow_id, events, description in raw_histories(stack.temporal):
        raw = b"".join(one.SerializeToString() for one in events) + description
        found += [workflow_id for one in spellings(PLANTED) if one in raw][:1]
    return found


async def test_urls_stand_in_no_log(tmp_path: Path) -> None:
    """A receiver that refuses, one that is not there, and a document that is not there; at the level debug."""
    settings = make_settings(tmp_path, log_level="debug")
    async with running_receiver([500, 500, 500]) as receiver:
        with sevenfold("dev", settings) as process:
            await until_ready(settings.port, process=process)
            async with http_client(settings.port) as http:
                for hook in (receiver.url("/hook"), "http://127.0.0.1:9/hook"):
                    body = {
                        "document": f"http://127.0.0.1:9/document?sig={PLANTED}",
                        "webhookUrl": f"{hook}?token={PLANTED}",
                        "webhookSecret": SECRET,
                        "timeout": 2,
                    }
                    assert (await http.post("/api/agent/analyze", json=body)).status_code == 202
                await receiver.received("/hook", 3)
            process.terminate()
    assert PLANTED not in process.output()
