"""Three days of deliveries, in seconds: the schedule, what puts it off, and receivers that fail for long."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from temporalio.client import WorkflowExecutionStatus, WorkflowFailureError
from temporalio.common import SearchAttributeKey
from temporalio.service import RPCError

from sevenfold.api.webhooks.views import find_delivery_state
from sevenfold.contracts.webhooks.delivery import DEFAULT_SCHEDULE, ENDPOINT_MEMO, DeliveryState, EndpointState
from sevenfold.contracts.webhooks.endpoints import ENDPOINT_MEMO_PREFIX, WebhookEndpoint, endpoints_workflow_id
from tests.support.receivers import Answer, hangs, simple
from tests.support.time_skipping import Days, days

RECEIVER = "default:receiver:127.0.0.1"
DELIVERY_STATE = SearchAttributeKey.for_keyword("DeliveryState")


@pytest.fixture
async def time(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Days]:
    async with days(tmp_path_factory.mktemp("days")) as running:
        yield running


async def timers(time: Days, delivery: str) -> list[float]:
    """Seconds of the timers in its history."""
    history = await time.environment.client.get_workflow_handle(delivery).fetch_history()
    started = (event.timer_started_event_attributes for event in history.events if event.event_type == 17)
    return [timer.start_to_fire_timeout.ToTimedelta().total_seconds() for timer in started]


async def receiver_state(time: Days) -> EndpointState | None:
    """None when nothing is remembered of it."""
    try:
        description = await time.environment.client.get_workflow_handle(RECEIVER).describe()
    except RPCError:
        return None
    if description.status is not WorkflowExecutionStatus.RUNNING:
        return None
    state: EndpointState | None = await description.memo_value(ENDPOINT_MEMO, None, type_hint=EndpointState)
    return state


async def remembered(time: Days, *, paused: bool) -> None:
    """Waits until the endpoint's health workflow has recorded the failures, which follows the delivery's record."""
    async with asyncio.timeout(20):
        while (state := await receiver_state(time)) is None or state.is_paused != paused:
            await asyncio.sleep(0.05)


async def test_delivery_follows_the_whole_schedule(time: Days) -> None:
    time.receiver.by_path["/"] = 500
    delivery = await time.delivered()
    for attempt in range(1, 10):
        await time.attempted(delivery, attempt)
        await time.skip_to_next_attempt(delivery)
    await time.attempted(delivery, 10)
    description, log = await time.described(delivery)
    assert description.status is WorkflowExecutionStatus.FAILED
    assert find_delivery_state(description) is DeliveryState.EXHAUSTED
    assert log.reason == "Every attempt of the schedule failed. Last failure: The receiver answered 500."
    assert [attempt.status for attempt in log.attempts] == [500] * 10
    waited = await timers(time, delivery)
    assert all(pause <= seconds <= pause * 1.1 for pause, seconds in zip(DEFAULT_SCHEDULE[1:], waited, strict=True))
    assert sum(DEFAULT_SCHEDULE) == timedelta(hours=75, minutes=35, seconds=5).total_seconds()
    assert len({post.id for post in time.receiver.posts}) == 1
    for post in time.receiver.posts:
        post.check()


@pytest.mark.parametrize(
    ("answer", "least", "most"),
    [
        (simple(429, ("retry-after", "7200")), 7_200, 7_920),
        (simple(503, ("retry-after", "604800")), 86_400, 95_040),
        (simple(429, ("retry-after", "1")), 5, 5.5),
        (simple(429, ("retry-after", "soon")), 5, 5.5),
        (simple(500, ("retry-after", "7200")), 5, 5.5),
    ],
)
async def test_retry_after_of_the_receiver_is_followed(time: Days, answer: Answer, least: float, most: float) -> None:
    time.receiver.answers = [answer]
    delivery = await time.delivered()
    await time.attempted(delivery, 1)
    await time.skip_to_next_attempt(delivery)
    await time.attempted(delivery, 2)
    (waited,) = await timers(time, delivery)
    assert least <= waited <= most
    description, log = await time.described(delivery)
    assert find_delivery_state(description) is DeliveryState.DELIVERED
    assert len(log.attempts) == 2


async def test_retry_after_date_of_the_receiver_is_followed(time: Days) -> None:
    at = datetime.now(UTC) + timedelta(hours=3)
    time.receiver.answers = [simple(503, ("retry-after", format_datetime(at, usegmt=True)))]
    delivery = await time.delivered()
    await time.attempted(delivery, 1)
    (waited,) = await timers(time, delivery)
    assert 3 * 3600 - 10 < waited <= 3 * 3600 * 1.1


async def test_manual_attempt_does_not_count_in_the_schedule(time: Days) -> None:
    time.receiver.by_path["/"] = 500
    delivery = await time.delivered((0, 3600, 7200))
    await time.attempted(delivery, 1)
    await time.environment.client.get_workflow_handle(delivery).signal("deliver_now")
    await time.attempted(delivery, 2)
    await time.skip_to_next_attempt(delivery)
    await time.attempted(delivery, 3)
    time.receiver.by_path["/"] = 204
    await time.skip_to_next_attempt(delivery)
    await time.attempted(delivery, 4)
    description, log = await time.described(delivery)
    assert find_delivery_state(description) is DeliveryState.DELIVERED
    assert [attempt.is_manual for attempt in log.attempts] == [False, True, False, False]


async def test_retry_after_of_a_manual_attempt_is_followed(time: Days) -> None:
    time.receiver.answers = [500, simple(503, ("retry-after", "10800"))]
    delivery = await time.delivered((0, 3600))
    await time.attempted(delivery, 1)
    await time.environment.client.get_workflow_handle(delivery).signal("deliver_now")
    await time.attempted(delivery, 2)
    _, log = await time.described(delivery)
    assert log.next_attempt_at is not None
    assert (log.next_attempt_at - log.attempts[-1].at).total_seconds() >= 10_800
    await time.skip_to_next_attempt(delivery)
    await time.attempted(delivery, 3)
    assert find_delivery_state((await time.described(delivery))[0]) is DeliveryState.DELIVERED


async def test_delivery_cancelled_during_its_post_is_recorded(time: Days) -> None:
    time.receiver.answers = [500, hangs]
    delivery = await time.delivered()
    await time.attempted(delivery, 1)
    handle = time.environment.client.get_workflow_handle(delivery)
    await handle.signal("deliver_now")
    async with asyncio.timeout(30):
        while len(time.receiver.posts) < 2:
            await asyncio.sleep(0.05)
    await handle.cancel()
    with pytest.raises(WorkflowFailureError):
        await handle.result()
    description, log = await time.described(delivery)
    assert description.status is WorkflowExecutionStatus.CANCELED
    assert description.typed_search_attributes[DELIVERY_STATE] == DeliveryState.CANCELLED
    assert log.next_attempt_at is None
    assert len(time.receiver.posts) == 2


async def test_waiting_delivery_can_be_cancelled(time: Days) -> None:
    time.receiver.by_path["/"] = 500
    delivery = await time.delivered()
    await time.attempted(delivery, 1)
    handle = time.environment.client.get_workflow_handle(delivery)
    await handle.cancel()
    with pytest.raises(WorkflowFailureError):
        await handle.result()
    description, log = await time.described(delivery)
    assert find_delivery_state(description) is DeliveryState.CANCELLED
    assert log.next_attempt_at is None


async def fail_for_half_a_day(time: Days) -> None:
    """Six attempts in thirteen hours, all in vain."""
    time.receiver.by_path["/"] = 500
    delivery = await time.delivered((0, 5, 300, 1_800, 7_200, 36_000, 360_000))
    for attempt in range(1, 7):
        await time.attempted(delivery, attempt)
        if attempt == 1:
            assert await receiver_state(time) is None, "a hiccup is not remembered"
        else:
            await remembered(time, paused=attempt == 6)
        if attempt < 6:
            await time.skip_to_next_attempt(delivery)


async def test_endpoint_is_paused_after_long_failure_and_reopened(time: Days) -> None:
    await fail_for_half_a_day(time)
    probe = await time.delivered((0, 600, 600))  # one an hour is tried
    await time.attempted(probe, 1)
    assert len(time.receiver.posts) == 7
    spared = [await time.delivered() for _ in range(3)]
    for delivery in spared:
        with pytest.raises(WorkflowFailureError):
            await time.environment.client.get_workflow_handle(delivery).result()
        description, log = await time.described(delivery)
        assert find_delivery_state(description) is DeliveryState.EXHAUSTED
        assert "paused" in str(log.reason)
        assert log.attempts == []
    assert len(time.receiver.posts) == 7
    assert find_delivery_state((await time.described(probe))[0]) is DeliveryState.RETRYING
    time.receiver.by_path["/"] = 204
    # by hand: this server skips no time any more once a delivery has ended
    await time.environment.client.get_workflow_handle(probe).signal("deliver_now")
    await time.attempted(probe, 2)
    async with asyncio.timeout(30):
        while await receiver_state(time) is not None:
            await asyncio.sleep(0.1)
    assert find_delivery_state((await time.described(probe))[0]) is DeliveryState.DELIVERED
    open_again = await time.delivered()
    await time.attempted(open_again, 1)
    assert find_delivery_state((await time.described(open_again))[0]) is DeliveryState.DELIVERED


async def test_idle_endpoint_health_workflow_ends(time: Days) -> None:
    time.receiver.by_path["/"] = 500
    delivery = await time.delivered((0, 5, 360_000))
    await time.attempted(delivery, 1)
    await time.skip_to_next_attempt(delivery)
    await time.attempted(delivery, 2)
    await remembered(time, paused=False)
    await time.skip(hours=49)
    assert await receiver_state(time) is None


async def test_many_failures_in_an_hour_do_not_pause_an_endpoint(time: Days) -> None:
    time.receiver.by_path["/"] = 500
    for _ in range(6):
        delivery = await time.delivered((0, 1))
        await time.attempted(delivery, 1)
        await time.skip_to_next_attempt(delivery)
        await time.attempted(delivery, 2)
    await remembered(time, paused=False)


async def test_stored_endpoint_is_disabled_by_the_last_attempts_of_its_schedule(time: Days) -> None:
    """72 hours after the first failure that counts; its host is not paused."""
    time.receiver.by_path["/"] = 500
    endpoint_id = await time.stored_endpoint()
    handle = time.environment.client.get_workflow_handle(endpoints_workflow_id("default"))

    async def read() -> WebhookEndpoint:
        memo = f"{ENDPOINT_MEMO_PREFIX}{endpoint_id}"
        found: WebhookEndpoint = await (await handle.describe()).memo_value(memo, type_hint=WebhookEndpoint)
        return found

    delivery = await time.delivered(endpoint_id=endpoint_id)
    for attempt in range(1, 10):
        await time.attempted(delivery, attempt)
        assert (await read()).disabled is None
        await time.skip_to_next_attempt(delivery)
    await time.attempted(delivery, 10)
    async with asyncio.timeout(20):
        while (endpoint := await read()).disabled is None:
            await asyncio.sleep(0.05)
    assert endpoint.health.failing_since is not None
    assert timedelta(hours=72) <= endpoint.disabled.at - endpoint.health.failing_since < timedelta(hours=84)
    assert endpoint.health.failures == 5
    assert await receiver_state(time) is None
    time.receiver.by_path["/"] = 204
    await asyncio.sleep(0.6)  # the worker's cache
    later = await time.delivered(endpoint_id=endpoint_id)
    async with asyncio.timeout(20):
        while (log := (await time.described(later))[1]).reason is None:
            await asyncio.sleep(0.05)
    assert "stored is disabled" in log.reason
    assert log.attempts == []
