"""The article's two stories by the commands of examples/events, and the AsyncAPI document."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

from faststream.specification.asyncapi.v3_0_0.schema import ApplicationSchema

from tests.support.events import EVENTS, by_subscription, subscribed, wait_until_settled
from tests.support.stack import ROOT, Stack, http_client, make_settings, sevenfold, until_ready

EXAMPLE = ROOT / "examples" / "events"


def posted() -> list[dict[str, Any]]:
    """The bodies of the README's commands."""
    return [
        json.loads(body) for body in re.findall(r"-d '(\{.*?\})'", (EXAMPLE / "README.md").read_text(), re.DOTALL)
    ]


async def test_event_examples_of_the_article(tmp_path: Path) -> None:
    settings = make_settings(tmp_path)
    shutil.copytree(EXAMPLE, tmp_path, dirs_exist_ok=True)
    customer, transaction = posted()
    harmless = {**transaction, "id": "t-901", "data": {"id": "t-901", "amount": 12}}
    with sevenfold("dev", settings) as dev:
        await until_ready(settings.port, process=dev)
        async with http_client(settings.port) as http:
            trees = []
            for cloud_event in (customer, transaction, harmless):
                answer = await http.post(EVENTS, json=cloud_event)
                assert answer.status_code == 202, answer.text
                trees.append(await wait_until_settled(http, answer.json()["items"][0]["id"]))
    enriched = by_subscription(trees[0])["enrich-customers"]["published"][0]
    assert enriched["type"] == "customer.enriched"
    assert {one["subscription"]: one["status"] for one in enriched["reactions"]} == {
        "crm": "completed",
        "marketing": "completed",
    }
    alert = by_subscription(trees[1])["detect-fraud"]["published"][0]
    assert alert["type"] == "fraud.alert"
    assert {one["subscription"] for one in alert["reactions"]} == {"block", "notify", "review"}
    assert by_subscription(trees[2])["detect-fraud"]["published"] == []
    actions = [json.loads(line) for line in (tmp_path / "actions.jsonl").read_text().splitlines()]
    assert sorted(action["system"] for action in actions) == ["audit", "crm", "marketing", "payments", "team"]
    assert next(action for action in actions if action["system"] == "payments")["blocked"] == "t-900"
    assert next(action for action in actions if action["system"] == "crm")["segment"] == "business"


async def test_asyncapi_document_is_valid(stack: Stack) -> None:
    await subscribed(stack, "documented", "t.documented", publishes="t.documented.out")
    answer = await stack.http.get("/asyncapi.json")
    assert answer.status_code == 200
    document = answer.json()
    ApplicationSchema.model_validate(document)
    assert document["asyncapi"] == "3.0.0"
    assert "t.documented.out" in document["components"]["messages"]["CloudEvent"]["x-published-types"]
    assert "documented: echo · work → t.documented.out" in document["info"]["description"]
    for operation in document["operations"].values():
        assert resolved(document, operation["channel"]["$ref"])["address"].startswith("/api/agent/events")
        for message in operation["messages"]:
            assert resolved(document, resolved(document, message["$ref"])["$ref"])["payload"]["properties"]["id"]


def resolved(document: dict[str, Any], pointer: str) -> dict[str, Any]:
    found: Any = document
    for step in pointer.removeprefix("#/").split("/"):
        found = found[step.replace("~1", "/").replace("~0", "~")]
    return dict(found)
