"""Subscriptions, in the configuration and over HTTP, in every process, without a restart."""

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

from sevenfold.contracts.events.subscriptions import MAX_SUBSCRIPTIONS_BYTES, registry_workflow_id
from sevenfold.runtime.config.config_file import load_config
from sevenfold.runtime.startup import StartupError
from tests.support.agents import SEEN
from tests.support.events import (
    EVENTS,
    SUBSCRIPTIONS,
    by_subscription,
    event,
    published,
    subscribed,
    tree,
    wait_until_settled,
)
from tests.support.stack import CONFIG, Stack, another_api, running_stack

TERMS: dict[str, Any] = {"filter": {"exact": {"type": "t.terms"}}, "agent": "echo", "task": "work"}


async def test_subscription_is_created_read_changed_and_removed(stack: Stack) -> None:
    created = await stack.http.post(SUBSCRIPTIONS, json={"name": "life", **TERMS})
    assert created.status_code == 201
    assert created.headers["location"] == f"{SUBSCRIPTIONS}/life"
    again = await stack.http.post(SUBSCRIPTIONS, json={"name": "life", **TERMS})
    assert again.status_code == 409
    assert "PUT" in again.json()["detail"]
    changed = await stack.http.put(f"{SUBSCRIPTIONS}/life", json={**TERMS, "publishes": "t.other"})
    assert changed.status_code == 200
    assert (await stack.http.get(f"{SUBSCRIPTIONS}/life")).json()["publishes"] == "t.other"
    listed = (await stack.http.get(SUBSCRIPTIONS)).json()["items"]
    assert next(one for one in listed if one["name"] == "life")["origin"] == "api"
    assert (await stack.http.delete(f"{SUBSCRIPTIONS}/life")).status_code == 204
    assert (await stack.http.delete(f"{SUBSCRIPTIONS}/life")).status_code == 404
    assert (await stack.http.get(f"{SUBSCRIPTIONS}/life")).status_code == 404


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"filter": {"regex": {"type": "x"}}}, "/filter/regex"),
        ({"filter": {}}, "/filter"),
        ({"agent": "nobody"}, "/agent"),
        ({"task": ""}, "/task"),
        ({"concurrency": 0}, "/concurrency"),
        ({"publishes": "with space"}, "/publishes"),
        ({"unknown": 1}, "/unknown"),
        ({"webhookUrl": "http://127.0.0.1/"}, "/webhookSecret"),
        ({"webhookSecret": "s"}, "/webhookUrl"),
        ({"webhookUrl": "http://10.0.0.1/", "webhookSecret": "s"}, "/webhookUrl"),
    ],
)
async def test_invalid_subscription_names_the_field(stack: Stack, change: dict[str, Any], pointer: str) -> None:
    answer = await stack.http.put(f"{SUBSCRIPTIONS}/wrong", json={**TERMS, **change})
    assert answer.status_code == 422, answer.text
    assert pointer in [error["pointer"] for error in answer.json()["errors"]]
    assert (await stack.http.get(f"{SUBSCRIPTIONS}/wrong")).status_code == 404


async def test_subscription_change_takes_effect_within_a_second_in_every_process(stack: Stack) -> None:
    """Events arrive at two APIs; every event accepted a second after the change has its reaction."""
    async with another_api(stack) as api:
        for http in (stack.http, api.http):
            await published(http, event("t.soon"))
        await stack.http.put(f"{SUBSCRIPTIONS}/soon", json={**TERMS, "filter": {"exact": {"type": "t.soon"}}})
        changed_at = time.monotonic()
        late: list[str] = []
        while time.monotonic() - changed_at < 1.6:
            for http in (stack.http, api.http):
                sent = time.monotonic()
                accepted = await published(http, event("t.soon"))
                if sent - changed_at > 1.1:
                    late.append(accepted)
            await asyncio.sleep(0.1)
        late += [await published(http, event("t.soon")) for http in (stack.http, api.http)]
        for event_id in late:
            assert [one["subscription"] for one in (await wait_until_settled(stack.http, event_id))["reactions"]] == [
                "soon"
            ]
        await api.http.delete(f"{SUBSCRIPTIONS}/soon")
        await asyncio.sleep(1)
        assert (await wait_until_settled(stack.http, await published(stack.http, event("t.soon"))))["reactions"] == []


async def test_subscriptions_beyond_the_size_limit_are_refused(stack: Stack) -> None:
    filler = {**TERMS, "params": {"text": "x" * (MAX_SUBSCRIPTIONS_BYTES // 4)}}
    answers = [await stack.http.put(f"{SUBSCRIPTIONS}/filler-{n}", json=filler) for n in range(4)]
    assert [answer.status_code for answer in answers] == [201, 201, 201, 409]
    assert "sevenfold.toml" in answers[3].json()["detail"]
    for n in range(3):
        assert (await stack.http.delete(f"{SUBSCRIPTIONS}/filler-{n}")).status_code == 204


async def test_a_change_writes_no_other_subscriptions(tmp_path: Path) -> None:
    """Whether there are few or many, a change adds the same to the history."""
    async with running_stack(tmp_path) as stack:
        handle = stack.temporal.get_workflow_handle(registry_workflow_id("default"))

        async def history_bytes() -> int:
            return sum(one.ByteSize() for one in (await handle.fetch_history()).events)

        added = []
        for number in range(40):
            before = await history_bytes() if number in (1, 39) else 0
            answer = await stack.http.post(SUBSCRIPTIONS, json={"name": f"sub-{number:02}", **TERMS})
            assert answer.status_code == 201
            if before:
                added.append(await history_bytes() - before)
        assert added[1] < 1.2 * added[0] < 6_000


async def test_subscription_concurrency_is_limited(stack: Stack) -> None:
    """`concurrency`: twelve events, three at a time."""
    await subscribed(stack, "few", "t.few", "witness", params={"who": "few", "seconds": 0.4}, concurrency=3)
    ids = [await published(stack.http, event("t.few", {"n": n})) for n in range(12)]
    for event_id in ids:
        await wait_until_settled(stack.http, event_id, seconds=60)
    spans = [(began, ended) for who, _, began, ended in SEEN if who == "few"]
    assert len(spans) == 12
    most = max(sum(began <= moment < ended for began, ended in spans) for moment, _ in spans)
    assert 2 <= most <= 3


CONFIGURED = """
[[subscriptions]]
name = "configured"
filter = { exact = { type = "t.configured" } }
agent = "witness"
task = "work"
publishes = "t.from.config"
order_by = "data.key"
webhook_url = "http://127.0.0.1:9/"
webhook_secret_env = "TESTS_WEBHOOK_SECRET"
"""


async def test_configured_subscription_reacts_and_cannot_be_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TESTS_WEBHOOK_SECRET", "whsec_configured")
    async with running_stack(tmp_path, more_config=CONFIGURED, event_budget=3) as stack:
        shown = (await stack.http.get(f"{SUBSCRIPTIONS}/configured")).json()
        assert shown["origin"] == "configuration"
        assert shown["webhookUrl"] == "http://127.0.0.1:9/"
        for answer in (
            await stack.http.put(f"{SUBSCRIPTIONS}/configured", json=TERMS),
            await stack.http.post(SUBSCRIPTIONS, json={"name": "configured", **TERMS}),
            await stack.http.delete(f"{SUBSCRIPTIONS}/configured"),
        ):
            assert answer.status_code == 409
            assert "sevenfold.toml" in answer.json()["detail"]
        event_id = await published(stack.http, event("t.configured", {"key": 1}))
        found = by_subscription(await wait_until_settled(stack.http, event_id))["configured"]
        assert [one["type"] for one in found["published"]] == ["t.from.config"]
        assert (await stack.run(found["id"]))["webhook"] is not None
        # the budget of a correlation: three events, and what comes of the third is refused
        await subscribed(stack, "two", "t.two", "deriver", params={"events": [{"type": "t.leaf"}] * 5})
        letters = []
        root = await published(stack.http, event("t.two"))
        await wait_until_settled(stack.http, root)
        async with asyncio.timeout(15):
            while not letters:
                listed = await stack.http.get("/api/agent/dead-letters", params={"kind": "event"})
                letters = listed.json()["items"]
                # visibility lags: those five may all have been let in before the first was counted
                await published(stack.http, event("t.leaf", correlationid=root, hops=1))
                await asyncio.sleep(0.3)
        assert f"The correlation {root} has more than 3 events" in letters[0]["reason"]


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ('[[subscriptions]]\nname = "a"', "subscriptions.0.filter"),
        (
            '[[subscriptions]]\nname = "a"\ntask = "x"\nfilter = { regex = { a = "b" } }',
            "subscriptions.0.filter.regex",
        ),
        ('[[subscriptions]]\nname = "a"\ntask = "x"\nagent = "nobody"\nfilter = { exact = { a = "b" } }', "nobody"),
        ('[brokers.b]\nkind = "nats"', "url_env"),
        ('[brokers.b]\nkind = "mqtt"\nurl = "x"', "brokers.b.kind"),
    ],
)
def test_subscription_mistakes_in_the_configuration_are_named(tmp_path: Path, text: str, named: str) -> None:
    path = tmp_path / "sevenfold.toml"
    path.write_text(f"{CONFIG}\n{text}\n")
    with pytest.raises(StartupError, match=named):
        load_config(path)


async def test_event_without_subscription_has_no_reaction(stack: Stack) -> None:
    found = await wait_until_settled(stack.http, await published(stack.http, event("t.nobody")))
    assert found["reactions"] == []
    assert (await tree(stack.http, found["id"]))["status"] == "completed"
    assert (await stack.http.get(f"{EVENTS}/{found['id']}")).json()["routes"] == []
