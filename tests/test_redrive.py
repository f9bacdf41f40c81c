"""Dead letters that are driven again."""

import asyncio
from pathlib import Path

from bench.server_sent_events import events as stream_events
from tests.support.events import EVENTS, LETTERS, event, published, subscribed, wait_until_settled
from tests.support.processes import until
from tests.support.receivers import SECRET, running_receiver
from tests.support.stack import running_stack


async def test_redriven_reaction_publishes_streams_and_delivers_again(tmp_path: Path) -> None:
    """Its chunks, events and deliveries are not mistaken for those of its first execution."""
    flag = tmp_path / "well"
    (tmp_path / "moody.py").write_text(
        "from pathlib import Path\n"
        "from sevenfold import AgentRejected, Delta, Reply\n"
        "async def agent(request):\n"
        "    for word in ('a ', 'b ', 'c '):\n"
        "        yield Delta(text=word)\n"
        f"    if not Path({str(flag)!r}).exists():\n"
        "        raise AgentRejected('not today')\n"
        "    yield Reply(response='a b c ')\n"
    )
    config = '[agents.moody]\nkind = "python"\ntarget = "moody:agent"\n[interactions]\nenabled = true'
    async with running_stack(tmp_path, more_config=config) as stack, running_receiver() as receiver:
        await subscribed(stack, "moody", "t.moody", "moody", webhookUrl=receiver.url("/hook"), webhookSecret=SECRET)
        found = await wait_until_settled(stack.http, await published(stack.http, event("t.moody")))
        reaction = found["reactions"][0]["id"]
        assert found["reactions"][0]["status"] == "failed"
        await until(lambda: len(receiver.at("/hook")) == 1, 20)
        flag.touch()
        assert (await stack.http.post(f"{LETTERS}/{reaction}/redrive")).status_code == 202
        assert (await stack.run_until(reaction, "completed"))["status"] == "completed"
        await until(lambda: len(receiver.at("/hook")) == 2, 20)
        first, second = receiver.at("/hook")
        assert (first.json["status"], second.json["status"]) == ("failed", "completed")
        assert first.headers["webhook-id"] != second.headers["webhook-id"]

        async def reported() -> set[str]:
            listed = (await stack.http.get(f"{EVENTS}?source=/sevenfold/runs")).json()["items"]
            return {one["event"]["type"] for one in listed if one["event"]["data"]["runId"] == reaction}

        await until(lambda: reported(), 10)
        async with asyncio.timeout(10):
            while await reported() != {"interaction.failed", "interaction.completed"}:
                await asyncio.sleep(0.2)
        async with stack.http.stream(
            "GET", f"/api/agent/runs/{reaction}/stream", headers={"Last-Event-ID": "2"}
        ) as answer:
            read = [one async for one in stream_events(answer)]
        assert any(one.data.get("reset") for one in read), (
            "a reader that had a part of the first execution gets a reset"
        )
