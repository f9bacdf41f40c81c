"""The page behind a one-time link, with curl's means and in a real browser."""

import asyncio
import base64
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.support.browser import browser_page
from tests.support.stack import Stack, running_stack

API = "/api/agent"
CONFIG = '[agents.asker]\nkind = "python"\ntarget = "tests.support.durable_agents:asker"\n'
SCHEMA = {
    "type": "object",
    "properties": {
        "reason": {"type": "string", "title": "Why", "description": "One <b>sentence</b>."},
        "amount": {"type": "number", "maximum": 100},
        "kind": {"enum": ["full", "half"]},
        "sure": {"type": "boolean"},
    },
    "required": ["reason", "kind"],
}


@pytest.fixture(scope="module")
async def asking(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    directory = tmp_path_factory.mktemp("pages")
    (directory / "tests").symlink_to(Path(__file__).parent)
    async with running_stack(directory, more_config=CONFIG) as stack:
        yield stack


async def asked(stack: Stack, log: Path, **params: Any) -> tuple[str, str]:
    """Returns the id of a run that asks, and the path of its link."""
    body = {"task": "t", "agent": "asker", "params": {"log": str(log), **params}}
    run_id = str((await stack.http.post(f"{API}/tasks", json=body)).json()["taskId"])
    await stack.run_until(run_id, "input_required")
    run = (await stack.http.get(f"{API}/runs/{run_id}")).json()
    return run_id, urlsplit(run["requests"][0]["url"]).path


async def test_a_link_shows_and_a_post_decides(asking: Stack, tmp_path: Path) -> None:
    run_id, link = await asked(asking, tmp_path / "log")
    for _ in range(2):
        page = await asking.http.get(link)
        assert page.status_code == 200
        assert "May I?" in page.text
        assert "script" not in page.text
        assert page.headers["referrer-policy"] == "same-origin"
    assert (await asking.http.head(link)).status_code in (200, 405)
    assert (await asking.run_until(run_id, "input_required"))["status"] == "input_required", "a GET decides nothing"
    answers = await asyncio.gather(
        *(asking.http.post(link, data={"action": "accept", "content": "true"}) for _ in range(3))
    )
    assert 200 in {answer.status_code for answer in answers}
    assert {answer.status_code for answer in answers} <= {200, 410}
    run = await asking.run_until(run_id, "completed")
    assert run["result"]["data"]["answer"] is True  # type: ignore[index]
    again = await asking.http.get(link)
    assert (again.status_code, "has been answered" in again.text) == (410, True)


async def test_forged_and_expired_links_say_so(asking: Stack, tmp_path: Path) -> None:
    _, link = await asked(asking, tmp_path / "log", expires=2)
    token = link.rpartition("/")[2]
    raw = bytearray(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
    raw[25] ^= 1
    forged = base64.urlsafe_b64encode(bytes(raw)).decode().rstrip("=")
    for odd in (forged, token[:-3], "x", "%3Cscript%3E", "a" * 3_000, f"{token}%0A"):
        for method in ("GET", "POST"):
            answer = await asking.http.request(method, f"/approvals/{odd}", data=None)
            assert answer.status_code in (404, 410, 422), odd[:20]
            assert "<script>" not in answer.text
    await asyncio.sleep(2)
    late = await asking.http.post(link, data={"action": "accept", "content": "true"})
    assert (late.status_code, "expired" in late.text) == (404, True)


async def test_a_form_of_a_schema_checks_what_was_written(asking: Stack, tmp_path: Path) -> None:
    run_id, link = await asked(asking, tmp_path / "log", schema=SCHEMA)
    page = (await asking.http.get(link)).text
    assert "One &lt;b&gt;sentence&lt;/b&gt;." in page
    wrong = await asking.http.post(
        link, data={"action": "accept", "field-0": "why", "field-1": "1000", "field-2": "full"}
    )
    assert wrong.status_code == 422
    assert 'role="alert"' in wrong.text
    words = await asking.http.post(link, data={"action": "accept", "field-0": "why", "field-1": "many"})
    assert "amount is a number" in words.text
    for odd in (b"\xff\xfe", b"a=b&" * 3_000, b"action=accept", b""):
        form = {"Content-Type": "application/x-www-form-urlencoded"}
        assert (await asking.http.post(link, content=odd, headers=form)).status_code in (400, 422), odd[:9]
    right = {"action": "accept", "field-0": "broken", "field-1": "9.5", "field-2": "half", "field-3": ""}
    assert (await asking.http.post(link, data=right)).status_code == 200
    run = await asking.run_until(run_id, "completed")
    expected = {"reason": "broken", "amount": 9.5, "kind": "half", "sure": False}
    assert run["result"]["data"]["answer"] == expected  # type: ignore[index]


async def test_other_schemas_are_answered_in_json(asking: Stack, tmp_path: Path) -> None:
    run_id, link = await asked(asking, tmp_path / "log", schema={"type": "array", "items": {"type": "integer"}})
    assert (await asking.http.post(link, data={"action": "accept", "json": "[1, "})).status_code == 422
    assert (await asking.http.post(link, data={"action": "accept", "json": "[1, 2]"})).status_code == 200
    run = await asking.run_until(run_id, "completed")
    assert run["result"]["data"]["answer"] == [1, 2]  # type: ignore[index]


async def test_a_person_answers_in_a_browser(asking: Stack, tmp_path: Path) -> None:
    run_id, link = await asked(asking, tmp_path / "log", schema=SCHEMA)
    async with browser_page(f"http://127.0.0.1:{asking.settings.port}{link}") as page:
        assert await page.inner_text("h1") == "A question for you"
        await page.get_by_label("Why").fill("It broke.")
        await page.get_by_label("kind").select_option("full")
        await page.screenshot(path=str(tmp_path / "page.png"))
        await page.get_by_role("button", name="Accept").click()
        assert "Your answer was taken" in await page.inner_text("h1")
        await page.goto(f"http://127.0.0.1:{asking.settings.port}{link}")
        assert "has been answered" in await page.inner_text("h1")
    run = await asking.run_until(run_id, "completed")
    assert run["result"]["data"]["answer"]["reason"] == "It broke."  # type: ignore[index]


async def test_a_person_declines_without_filling_in(asking: Stack, tmp_path: Path) -> None:
    run_id, link = await asked(asking, tmp_path / "log", schema=SCHEMA)
    async with browser_page(f"http://127.0.0.1:{asking.settings.port}{link}") as page:
        await page.get_by_role("button", name="Decline").click()
        assert "Your answer was taken" in await page.inner_text("h1")
    run = await asking.run_until(run_id, "completed")
    assert run["result"]["response"] == "Declined"  # type: ignore[index]
