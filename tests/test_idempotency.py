"""One key, one run: whatever the client, the network or the clock does."""

import asyncio

import pytest

from tests.support.agents import CALLS
from tests.support.stack import Stack


async def test_hundred_concurrent_requests_with_one_key_start_one_run(stack: Stack) -> None:
    headers = {"Idempotency-Key": "hundred"}
    answers = await asyncio.gather(
        *(stack.query(agent="careful", params={"seconds": 0.3}, headers=headers) for _ in range(100))
    )
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.text for answer in answers}) == 1
    replayed = [answer.headers.get("Idempotency-Replayed") for answer in answers]
    assert replayed.count("true") == 99
    assert CALLS[answers[0].json()["queryId"]] == 2, "one start, one finish"


async def test_repeated_request_gets_the_same_answer(stack: Stack) -> None:
    first = await stack.query("same", agent="echo", headers={"Idempotency-Key": "later"})
    second = await stack.query("same", agent="echo", headers={"Idempotency-Key": '"later"'})
    assert second.text == first.text
    assert "Idempotency-Replayed" not in first.headers
    assert second.headers["Idempotency-Replayed"] == "true"


async def test_white_space_and_key_order_do_not_change_the_body(stack: Stack) -> None:
    headers = {"Idempotency-Key": "order", "Content-Type": "application/json"}
    one = '{"query":"q","agent":"echo","context":{"a":1,"b":2}}'
    two = '{ "context": {"b": 2, "a": 1},\n "agent": "echo", "query": "q" }'
    first = await stack.http.post("/api/agent/query", content=one, headers=headers)
    second = await stack.http.post("/api/agent/query", content=two, headers=headers)
    assert second.status_code == 200
    assert second.text == first.text


async def test_same_key_with_another_body_is_refused(stack: Stack) -> None:
    await stack.query("one", agent="echo", headers={"Idempotency-Key": "other"})
    answer = await stack.query("two", agent="echo", headers={"Idempotency-Key": "other"})
    assert answer.status_code == 422
    assert answer.json()["type"] == "/problems/idempotency-key-reused"


async def test_repeated_request_gets_the_same_failure(stack: Stack) -> None:
    first = await stack.query(agent="hopeless", headers={"Idempotency-Key": "failed"})
    second = await stack.query(agent="hopeless", headers={"Idempotency-Key": "failed"})
    assert first.status_code == second.status_code == 502
    assert second.headers["Idempotency-Replayed"] == "true"
    assert CALLS[first.json()["runId"]] == 1


async def test_duplicate_request_joins_the_running_one(stack: Stack) -> None:
    headers = {"Idempotency-Key": "join"}
    first = asyncio.create_task(stack.query(agent="careful", params={"seconds": 1.5}, headers=headers))
    await asyncio.sleep(0.7)
    second = await stack.query(agent="careful", params={"seconds": 1.5}, headers=headers)
    assert second.text == (await first).text


async def test_invalid_request_does_not_use_up_its_key(stack: Stack) -> None:
    headers = {"Idempotency-Key": "invalid-first"}
    assert (await stack.query("", agent="echo", headers=headers)).status_code == 422
    assert (await stack.query("x", agent="nobody", headers=headers)).status_code == 422
    assert (await stack.query("x", agent="echo", headers=headers)).status_code == 200


@pytest.mark.parametrize("key", ["", '""', "with space", "a" * 256, '"unclosed', "tab\there"])
async def test_invalid_idempotency_key_is_refused(stack: Stack, key: str) -> None:
    answer = await stack.query(agent="echo", headers={"Idempotency-Key": key})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == "header:idempotency-key"


async def test_idempotency_key_of_maximum_length_works(stack: Stack) -> None:
    for _ in range(2):
        answer = await stack.query(agent="echo", headers={"Idempotency-Key": "k" * 255})
        assert answer.status_code == 200
