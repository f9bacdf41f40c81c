"""The OpenAPI document, against the running server: schemathesis over all of it."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from tests.support.stack import Stack, running_stack

SCHEMATHESIS = Path(sys.executable).parent / "schemathesis"


@pytest.fixture
async def untouched(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    """What other tests left behind is not asked for: agents that fail are a 502, and rightly. The budget is small,
    since a subscription that somebody makes up may be for everything, and several of them multiply each event.
    """
    async with running_stack(tmp_path_factory.mktemp("untouched"), event_budget=3) as stack:
        yield stack


def _expected(path: str, status: int) -> str:
    statuses = f'["2xx", "4xx", "{status}"]'
    return f'[[operations]]\ninclude-path = "{path}"\nchecks.not_a_server_error.expected-statuses = {statuses}\n'


async def test_every_operation_passes_schemathesis(untouched: Stack, tmp_path: Path) -> None:
    """All checks: no 5xx, and every answer of a status, content type and shape that the document promises.

    Run as a command, as a user of the document would.
    """
    (tmp_path / "schemathesis.toml").write_text(
        # waiting for an agent is not what is tested here
        'headers = { Prefer = "wait=5" }\nrequest-timeout = 30\n'
        '[[operations]]\ninclude-path = "/api/agent/tasks/{task_id}"\nparameters = { wait = 1 }\n'
        # It never ends; and an event may not be called `stream`, which is that address.
        '[[operations]]\ninclude-path = "/api/agent/events/stream"\nenabled = false\n'
        '[[operations]]\ninclude-path = "/api/agent/events/{event_id}"\n'
        f'parameters = {{ event_id = "evt_{"a" * 26}" }}\n'
        "[checks]\nmax_response_time = 30\n"
        # a run that is to answer within half a second may rightly be late, and a busy server not be ready
        f"{_expected('/api/agent/query', 504)}{_expected('/api/agent/hybrid', 504)}{_expected('/health/ready', 503)}"
    )
    command = [str(SCHEMATHESIS), "--config-file", str(tmp_path / "schemathesis.toml"), "run"]
    command += [f"http://127.0.0.1:{untouched.settings.port}/openapi.json"]
    command += ["--max-examples", "3", "--workers", "1", "--checks", "all", "--no-color", "--seed", "7"]
    # No schema distinguishes a cursor that the list returned from any other; and whether what was created can be
    # read is asked with the id above.
    command += ["--exclude-checks", "positive_data_acceptance,ensure_resource_availability"]
    done = await asyncio.to_thread(
        subprocess.run,
        command,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]


async def document(stack: Stack) -> dict[str, Any]:
    return dict((await stack.http.get("/openapi.json")).json())


async def test_openapi_holds_the_examples_of_the_article(stack: Stack) -> None:
    schemas = (await document(stack))["components"]["schemas"]
    assert schemas["QueryRequest"]["examples"] == [
        {
            "query": "Analyze this customer feedback",
            "context": {"customerId": "12345", "previousInteractions": 5},
        }
    ]
    example = schemas["QueryAnswer"]["examples"][0]
    assert example["response"] == "Customer shows signs of churn risk..."
    assert example["confidence"] == 0.87
    assert example["processingTime"] == "2.3s"


def arrays(schema: Any, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """The schemas of arrays below a schema, with their places."""
    if isinstance(schema, dict):
        if schema.get("type") == "array":
            yield path, schema
        for name, value in schema.items():
            if name not in ("examples", "example", "default", "enum", "const"):
                yield from arrays(value, f"{path}/{name}")
    if isinstance(schema, list):
        for number, value in enumerate(schema):
            yield from arrays(value, f"{path}/{number}")


async def test_document_follows_the_rules_of_linters(stack: Stack) -> None:
    """Those of Spectral's `oas` that it broke once: examples that fit, arrays with items, unique ids, known tags."""
    found = await document(stack)
    operations = [o for path in found["paths"].values() for o in path.values()]
    ids = [operation["operationId"] for operation in operations]
    assert len(ids) == len(set(ids)) > 60
    described = {tag["name"] for tag in found["tags"] if tag["description"]}
    assert {tag for operation in operations for tag in operation["tags"]} == described
    assert [path for path, schema in arrays(found) if "items" not in schema and "prefixItems" not in schema] == []
    for name, schema in found["components"]["schemas"].items():
        whole = {"$ref": f"#/components/schemas/{name}", "components": found["components"]}
        for example in schema.get("examples", ()):
            assert list(jsonschema_rs.validator_for(whole).iter_errors(example)) == [], name


async def test_error_responses_are_documented_as_sent(stack: Stack) -> None:
    operations = [o for path in (await document(stack))["paths"].values() for o in path.values()]
    for operation in operations:
        for status, answer in operation["responses"].items():
            if int(status) >= 400 and operation["tags"] != ["health"]:
                assert list(answer["content"]) == ["application/problem+json"], operation["summary"]


async def test_docs_page_loads_nothing_from_other_hosts(stack: Stack) -> None:
    page = (await stack.http.get("/docs")).text
    assert "cdn" not in page
    for asset in ("/swagger/swagger-ui-bundle.js", "/swagger/swagger-ui.css"):
        answer = await stack.http.get(asset)
        assert answer.status_code == 200
        assert len(answer.content) > 10_000
