"""Fair queues and slots: tenants take turns."""

import asyncio
from collections.abc import Iterator

import pytest

from sevenfold.adapters.fairness import FairQueue, FairSlots, TenantShares, turns_until_served


def filled(**tenants: str) -> FairQueue[str]:
    queue: FairQueue[str] = FairQueue()
    for tenant, items in tenants.items():
        for item in items:
            queue.append(tenant, item)
    return queue


def drained(queue: FairQueue[str]) -> Iterator[str]:
    while queue:
        yield queue.popleft()


def test_tenants_take_turns_and_each_keeps_its_order() -> None:
    queue = filled(a="123456", b="xy", c="-")
    assert len(queue) == 9
    assert "".join(drained(queue)) == "1x-2y3456"
    assert len(queue) == 0


def test_one_tenant_has_a_plain_queue() -> None:
    assert "".join(drained(filled(a="123456"))) == "123456"


def test_tenant_that_comes_late_has_the_next_turn() -> None:
    queue = filled(a="123456")
    assert queue.popleft() == "1"
    queue.append("b", "x")
    assert "".join(drained(queue)) == "2x3456"


def test_removed_item_leaves_the_turns_of_others() -> None:
    queue = filled(a="12", b="x")
    queue.remove("a", "1")
    queue.remove("b", "x")
    for tenant, item in (("a", "1"), ("b", "x"), ("c", "1")):
        with pytest.raises(LookupError):
            queue.remove(tenant, item)
    assert "".join(drained(queue)) == "2"
    with pytest.raises(LookupError):
        queue.popleft()


def test_flood_of_one_tenant_costs_others_one_turn_per_item() -> None:
    assert turns_until_served({}, "b") == 1
    assert turns_until_served({"b": 5}, "b") == 6
    assert turns_until_served({"a": 1_000}, "b") == 2
    assert turns_until_served({"a": 1_000, "b": 2}, "b") == 6
    assert turns_until_served({"a": 1_000, "b": 2, "c": 1}, "b") == 7


async def test_slots_go_to_tenants_in_turns() -> None:
    slots, served = FairSlots(2), []

    async def use(tenant: str) -> None:
        await slots.acquire(tenant)
        served.append(tenant)
        await asyncio.sleep(0.01)
        slots.release()

    await asyncio.gather(*(use("a") for _ in range(20)), *(use("b") for _ in range(3)), use("c"))
    assert served[:2] == ["a", "a"]
    assert served[2:9] == ["a", "b", "c", "a", "b", "a", "b"]


async def test_cancelled_waiter_leaves_its_slot_to_others() -> None:
    slots = FairSlots(1)
    await slots.acquire("a")
    waiting = [asyncio.create_task(slots.acquire(tenant)) for tenant in ("a", "b", "c")]
    await asyncio.sleep(0)
    waiting[0].cancel()
    slots.release()  # b's turn, for a has gone
    waiting[1].cancel()  # at the very moment of its grant
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(one) for one in results] == [asyncio.CancelledError, asyncio.CancelledError, type(None)]
    slots.release()
    await asyncio.wait_for(slots.acquire("a"), 1)


async def test_share_of_a_tenant_grows_when_the_others_are_idle() -> None:
    shares = TenantShares(6, active_seconds=0.05)
    for _ in range(5):
        assert shares.has_room("a")
        shares.add("a")
    assert shares.has_room("b")
    shares.add("b")
    assert not shares.has_room("a"), "it holds more than half"
    await asyncio.sleep(0.06)
    assert not shares.has_room("a"), "the other tenant still holds something"
    shares.remove("b")
    assert shares.has_room("a")
    shares.add("a")
    assert not shares.has_room("a")


def test_each_of_many_tenants_has_room_for_one() -> None:
    shares = TenantShares(2)
    for tenant in "abcde":
        assert shares.has_room(tenant)
        shares.add(tenant)
        assert not shares.has_room(tenant) or tenant == "a"
