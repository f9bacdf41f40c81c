"""Callables as agents, and payloads in a directory."""

import asyncio
import os
import socket
import threading
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from temporalio.api.common.v1 import Payload
from temporalio.converter import StorageDriverClaim, StorageDriverRetrieveContext, StorageDriverStoreContext

from sevenfold.adapters.agents.callables import as_agent
from sevenfold.adapters.payloads.directory import PayloadDirectory
from sevenfold.adapters.payloads.stores import lost_payload
from sevenfold.contracts.agent import AgentContext, AgentEvent, AgentRequest, Delta, Progress, Reply
from sevenfold.contracts.verdicts import AgentRejected
from sevenfold.runtime.ports import bind

REQUEST = AgentRequest(run_id="qry_x", task="query", query="hello")


async def events(target: object) -> list[AgentEvent]:
    context = AgentContext(deadline=datetime.now(UTC) + timedelta(seconds=60))
    return [event async for event in as_agent(target).run(REQUEST, context)]


async def test_callable_may_return_text_reply_or_object() -> None:
    assert await events(lambda request: request.query) == [Reply(response="hello")]
    assert await events(lambda request: Reply(response="r", confidence=0.1)) == [Reply(response="r", confidence=0.1)]
    assert await events(lambda request: {"score": 1}) == [Reply(data={"score": 1})]
    assert await events(lambda request: {"response": "r", "confidence": 1, "more": [2]}) == [
        Reply(response="r", confidence=1, data={"more": [2]})
    ]


@pytest.mark.parametrize("answer", [None, 7, {"response": 7}, {"response": "r", "confidence": 2}, {1: 2}, object()])
async def test_other_return_values_of_a_callable_are_rejected(answer: Any) -> None:
    with pytest.raises(AgentRejected):
        await events(lambda request: answer)


async def test_coroutines_generators_objects_and_classes_are_callables() -> None:
    async def coroutine(request: AgentRequest) -> str:
        return "coroutine"

    async def with_context(request: AgentRequest, context: AgentContext) -> str:
        return f"{context.remaining_seconds() > 30}"

    async def stream(request: AgentRequest) -> AsyncIterator[Any]:
        yield "a"
        yield Delta(text="b")
        yield Progress(percent=50)
        yield Reply(response="ab")

    class Called:
        async def __call__(self, request: AgentRequest) -> str:
            return "called"

    class Whole:
        async def run(self, request: AgentRequest, context: AgentContext) -> AsyncIterator[AgentEvent]:
            yield Reply(response="whole")

    assert await events(coroutine) == [Reply(response="coroutine")]
    assert await events(with_context) == [Reply(response="True")]
    assert await events(stream) == [Delta(text="a"), Delta(text="b"), Progress(percent=50), Reply(response="ab")]
    assert await events(Called()) == [Reply(response="called")]
    assert await events(Whole()) == await events(Whole) == [Reply(response="whole")]


@pytest.mark.parametrize("target", [7, "text", None, lambda: 1, lambda a, b, c: 1, lambda *, keyword: 1])
def test_target_that_is_not_callable_as_an_agent_raises_type_error(target: object) -> None:
    with pytest.raises(TypeError):
        as_agent(target)


async def test_plain_functions_run_concurrently_in_threads() -> None:
    meeting = threading.Barrier(5)

    def meet(request: AgentRequest) -> str:
        meeting.wait(30)  # passes only when five of them run at once
        return threading.current_thread().name

    agent = as_agent(meet)
    context = AgentContext(deadline=datetime.now(UTC))

    async def one() -> str:
        return [event async for event in agent.run(REQUEST, context)][-1].response  # type: ignore[union-attr]

    assert len(set(await asyncio.gather(*(one() for _ in range(5))))) == 5


async def test_equal_payloads_are_stored_once_and_read_back_unchanged(tmp_path: Path) -> None:
    directory = PayloadDirectory(tmp_path)
    payloads = [Payload(data=b"x" * 300_000, metadata={"encoding": b"json/plain"}), Payload(data=b"y")]
    claims = await directory.store(StorageDriverStoreContext(), [*payloads, payloads[0]])
    assert claims[0] == claims[2]
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == 2
    assert await directory.retrieve(StorageDriverRetrieveContext(), claims[:2]) == payloads


@pytest.mark.parametrize("digest", ["", "../../etc/passwd", "A" * 64, "0" * 63, "0" * 64 + "/x", "../x"])
async def test_claim_never_leads_out_of_the_directory(tmp_path: Path, digest: str) -> None:
    (tmp_path / "x").write_bytes(Payload(data=b"secret").SerializeToString())
    claim = StorageDriverClaim(claim_data={"sha256": digest})
    found = await PayloadDirectory(tmp_path / "payloads").retrieve(StorageDriverRetrieveContext(), [claim])
    assert found == [lost_payload(digest)]


async def test_payload_changed_on_disk_is_reported_as_lost(tmp_path: Path) -> None:
    directory = PayloadDirectory(tmp_path)
    claims = await directory.store(StorageDriverStoreContext(), [Payload(data=b"x")])
    next(path for path in tmp_path.rglob("*") if path.is_file()).write_bytes(b"z")
    digest = claims[0].claim_data["sha256"]
    assert await directory.retrieve(StorageDriverRetrieveContext(), claims) == [lost_payload(digest)]


def test_listening_sockets_disable_nagle() -> None:
    # asyncio sets TCP_NODELAY only on sockets that name their protocol; without it each answer took 40 ms more.
    with bind("127.0.0.1", 0, "SEVENFOLD_PORT") as sock:
        assert sock.proto == socket.IPPROTO_TCP


async def test_payload_stored_again_outlives_the_cleanup(tmp_path: Path) -> None:
    directory = PayloadDirectory(tmp_path)
    payloads = [Payload(data=data) for data in (b"old", b"young", b"old but stored again")]
    claims = await directory.store(StorageDriverStoreContext(), payloads)
    a_while_ago = time.time() - 1000
    for path in tmp_path.rglob("*/*"):
        if b"young" not in path.read_bytes():
            os.utime(path, (a_while_ago, a_while_ago))
    await directory.store(StorageDriverStoreContext(), payloads[2:])
    assert await directory.remove_older_than(timedelta(seconds=500), "default") == 1
    assert await directory.retrieve(StorageDriverRetrieveContext(), claims[1:]) == payloads[1:]
    removed = claims[0].claim_data["sha256"]
    assert await directory.retrieve(StorageDriverRetrieveContext(), claims[:1]) == [lost_payload(removed)]
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == 2
