"""`/codec/decode` and `/codec/encode`, by the protocol and by the Temporal UI itself."""

import asyncio
import base64
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from temporalio.api.common.v1 import Payload
from temporalio.contrib.pydantic import pydantic_data_converter

from sevenfold.adapters.encryption.payload_codec import EncryptionCodec
from tests.support.browser import browser_page
from tests.support.codec_keys import key_setting, new_key, ring_of
from tests.support.stack import Stack, running_stack
from tests.support.tenants import TenantKey, client_of, key_config

KEY, OTHER = new_key("one"), new_key("other")
ADMIN, READER = TenantKey("default", ("admin",)), TenantKey("acme", ("runs:read", "runs:write"))


@pytest.fixture(scope="module")
async def encrypted(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    directory = tmp_path_factory.mktemp("encrypted")
    async with running_stack(directory, codec_keys=key_setting(KEY), temporal_ui=True) as stack:
        yield stack


async def as_json(text: str, key: str) -> dict[str, Any]:
    """A payload as Temporal's JSON has it, encrypted with the key."""
    clear = pydantic_data_converter.payload_converter.to_payload(text)
    (payload,) = await EncryptionCodec(ring_of(key)).encode([clear])
    return written(payload)


def written(payload: Payload) -> dict[str, Any]:
    return {
        "metadata": {name: base64.b64encode(value).decode() for name, value in payload.metadata.items()},
        "data": base64.b64encode(payload.data).decode(),
    }


async def test_codec_decodes_and_encodes(encrypted: Stack) -> None:
    foreign = await as_json("of another key", OTHER)
    body = {"payloads": [await as_json("a secret", KEY), foreign]}
    answer = await encrypted.http.post("/codec/decode", json=body, headers={"X-Namespace": "default"})
    clear, unknown = answer.json()["payloads"]
    assert base64.b64decode(clear["data"]) == b'"a secret"'
    assert base64.b64decode(clear["metadata"]["encoding"]) == b"json/plain"
    assert unknown == foreign, "the others are shown"
    again = (await encrypted.http.post("/codec/encode", json={"payloads": [clear]})).json()
    assert base64.b64decode(again["payloads"][0]["metadata"]["encryption-key-id"]) == b"one"
    assert (await encrypted.http.post("/codec/decode", json=again)).json() == {"payloads": [clear]}


@pytest.mark.parametrize("payload", [{"data": 7}, {"metadata": 7}])
async def test_codec_refuses_what_is_no_payload(encrypted: Stack, payload: dict[str, Any]) -> None:
    answer = await encrypted.http.post("/codec/decode", json={"payloads": [payload]})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == "/payloads/0"


async def test_only_pages_of_the_temporal_ui_may_decode(encrypted: Stack) -> None:
    port = encrypted.settings.temporal_ui_port
    asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type,x-namespace"}
    for origin in (f"http://localhost:{port}", f"http://127.0.0.1:{port}"):
        answer = await encrypted.http.options("/codec/decode", headers={"Origin": origin, **asked})
        assert answer.status_code == 200
        assert answer.headers["Access-Control-Allow-Origin"] == origin
        posted = await encrypted.http.post("/codec/decode", json={"payloads": []}, headers={"Origin": origin})
        assert (posted.status_code, posted.headers["Access-Control-Allow-Origin"]) == (200, origin)
        assert (await encrypted.http.get("/api/agent/runs", headers={"Origin": origin})).status_code == 403
    for origin in ("http://evil.example", f"http://evil.example:{port}", "null"):
        answer = await encrypted.http.options("/codec/decode", headers={"Origin": origin, **asked})
        assert answer.status_code == 403


async def test_temporal_ui_shows_decrypted_payloads(encrypted: Stack) -> None:
    run_id = (await encrypted.query("the-secret-of-this-test", agent="echo")).json()["queryId"]
    ui = f"http://127.0.0.1:{encrypted.settings.temporal_ui_port}"
    description = await encrypted.temporal.get_workflow_handle(f"default:{run_id}").describe()
    history = f"{ui}/namespaces/default/workflows/default:{run_id}/{description.run_id}/history"
    async with browser_page(history) as page:
        async with asyncio.timeout(30):
            while "the-secret-of-this-test" not in await page.content():
                await asyncio.sleep(0.3)


async def test_codec_needs_the_scope_admin(tmp_path: Path) -> None:
    config = key_config(ADMIN, READER)
    ui = "https://temporal.example"
    async with running_stack(
        tmp_path, more_config=config, codec_keys=key_setting(KEY), temporal_ui_url=f"{ui}/ui/"
    ) as stack:
        for key, status in ((None, 401), (READER, 403), (ADMIN, 200)):
            async with client_of(stack, key) as client:
                for path in ("/codec/decode", "/codec/encode"):
                    answer = await client.post(path, json={"payloads": []}, headers={"Origin": ui})
                    assert answer.status_code == status
                    assert answer.headers["Access-Control-Allow-Origin"] == ui


async def test_codec_without_keys_is_for_no_foreign_page(stack: Stack) -> None:
    clear = written(pydantic_data_converter.payload_converter.to_payload("clear"))
    assert (await stack.http.post("/codec/decode", json={"payloads": [clear]})).json() == {"payloads": [clear]}
    origin = f"http://localhost:{stack.settings.temporal_ui_port}"
    answer = await stack.http.post("/codec/decode", json={"payloads": []}, headers={"Origin": origin})
    assert answer.status_code == 403
