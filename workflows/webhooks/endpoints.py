"""A tenant's webhook endpoints: their records, health and tests. One workflow per tenant, without an end."""

from collections import deque
from collections.abc import Mapping
from datetime import timedelta

from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import ActivityError, ApplicationError, is_cancelled_exception

from sevenfold.activities.events.publish import EventPublication
from sevenfold.activities.webhooks.endpoint_tests import EndpointTests
from sevenfold.contracts import workflow_types
from sevenfold.contracts.events.cloudevents import CloudEvent
from sevenfold.contracts.events.event_driven import PublishEventsInput
from sevenfold.contracts.identity import parse_tenant
from sevenfold.contracts.webhooks.delivery import AttemptOutcome, AttemptResult, EndpointState
from sevenfold.contracts.webhooks.endpoints import (
    DISABLE_AFTER,
    ENDPOINT_DISABLED_TYPE,
    ENDPOINT_ENABLED_TYPE,
    ENDPOINT_EXISTS,
    ENDPOINT_MEMO_PREFIX,
    ENDPOINT_MISSING,
    ENDPOINT_TESTS_OPEN,
    ENDPOINTS_FULL,
    ENDPOINTS_SOURCE,
    MAX_ENDPOINTS_BYTES,
    MAX_OPEN_TESTS,
    MAX_SECRETS,
    DisableInput,
    Disablement,
    EditEndpointInput,
    EndpointResult,
    EndpointSecret,
    EndpointsState,
    EndpointTestInput,
    RotateInput,
    WebhookEndpoint,
    endpoint_memos,
)

_TESTS_RETRY_DELAY = timedelta(seconds=5)
_TEST_TIMEOUT = timedelta(seconds=25)
_HEARTBEAT_TIMEOUT = timedelta(seconds=8)


@workflow.defn(name=workflow_types.WEBHOOK_ENDPOINTS)
class WebhookEndpoints:
    """Keeps one memo per endpoint, so that reading them needs no worker. At most one endpoint is the default."""

    @workflow.init
    def __init__(self, state: EndpointsState) -> None:
        self._endpoints = dict(state.endpoints)
        self._event_count = state.event_count
        self._unpublished: deque[CloudEvent] = deque()
        self._renew_requested = False
        self._open_tests = 0

    @workflow.run
    async def run(self, state: EndpointsState) -> None:
        """Serves changes and publishes events; continues as new when Temporal suggests it, and on `renew`."""
        while True:
            await workflow.wait_condition(
                lambda: (
                    bool(self._unpublished) or self._renew_requested or workflow.info().is_continue_as_new_suggested()
                )
            )
            if self._unpublished:
                await self._publish(self._unpublished.popleft())
                continue
            await workflow.wait_condition(workflow.all_handlers_finished)
            if not self._unpublished:
                state = EndpointsState(endpoints=self._endpoints, event_count=self._event_count)
                workflow.continue_as_new(state, memo=endpoint_memos(state))

    @workflow.signal(name="renew", description="Encrypts state and memos with the first codec key.")
    def renew(self) -> None:
        """Sent at the start of a process whose first codec key is another one: continues as new."""
        self._renew_requested = True

    @workflow.update(name="create", description="Creates an endpoint.")
    def create(self, endpoint: WebhookEndpoint) -> None:
        """The validator rejects with `ENDPOINT_EXISTS` (the name) and `ENDPOINTS_FULL`."""
        self._store(endpoint)

    @create.validator
    def _validate_create(self, endpoint: WebhookEndpoint) -> None:
        self._check_name(endpoint)
        self._check_size(endpoint)

    @workflow.update(name="edit", description="Changes fields of an endpoint.")
    def edit(self, change: EditEndpointInput) -> None:
        """The validator rejects as that of `create` does, and with `ENDPOINT_MISSING`. A new URL has no failures."""
        edited = self._edited(change)
        if "sealed_url" in change.changed:
            edited = edited.model_copy(update={"health": EndpointState()})
        self._store(edited)

    @edit.validator
    def _validate_edit(self, change: EditEndpointInput) -> None:
        self._check_exists(change.id)
        self._check_name(self._edited(change))
        self._check_size(self._edited(change))

    @workflow.update(name="rotate", description="Adds a secret; the previous ones sign for a while.")
    def rotate(self, change: RotateInput) -> None:
        """The validator rejects with `ENDPOINT_MISSING`."""
        found, now = self._endpoints[change.id], workflow.now()
        end = now + timedelta(seconds=change.overlap_seconds)
        previous = [
            one.model_copy(update={"expires_at": min(one.expires_at or end, end)})
            for one in found.valid_secrets(now)
            if end > now
        ]
        secrets = [EndpointSecret(sealed=change.sealed), *previous][:MAX_SECRETS]
        self._store(found.model_copy(update={"secrets": secrets}))

    @rotate.validator
    def _validate_rotate(self, change: RotateInput) -> None:
        self._check_exists(change.id)

    @workflow.update(name="remove", description="Removes an endpoint, by its id.")
    def remove(self, endpoint_id: str) -> None:
        """Its open deliveries become dead letters. The validator rejects with `ENDPOINT_MISSING`."""
        del self._endpoints[endpoint_id]
        workflow.upsert_memo({f"{ENDPOINT_MEMO_PREFIX}{endpoint_id}": None})

    @remove.validator
    def _validate_remove(self, endpoint_id: str) -> None:
        self._check_exists(endpoint_id)

    @workflow.update(name="disable", description="Disables an endpoint: it gets no deliveries.")
    def disable(self, change: DisableInput) -> None:
        """Changes nothing if it is disabled already. The validator rejects with `ENDPOINT_MISSING`."""
        found = self._endpoints[change.id]
        if found.disabled is None:
            self._disable(found, change.reason)

    @disable.validator
    def _validate_disable(self, change: DisableInput) -> None:
        self._check_exists(change.id)

    @workflow.update(name="enable", description="Enables an endpoint, by its id, and forgets its failures.")
    def enable(self, endpoint_id: str) -> None:
        """The validator rejects with `ENDPOINT_MISSING`."""
        self._recover(self._endpoints[endpoint_id], "It was enabled by hand.")

    @enable.validator
    def _validate_enable(self, endpoint_id: str) -> None:
        self._check_exists(endpoint_id)

    @workflow.update(name="test", description="Posts a signed sample; success enables the endpoint.")
    async def test(self, change: EndpointTestInput) -> AttemptOutcome:
        """Returns what the receiver answered. The validator rejects with `ENDPOINT_MISSING` and
        `ENDPOINT_TESTS_OPEN`.
        """
        self._open_tests += 1
        try:
            outcome = await workflow.execute_activity_method(
                EndpointTests.test_endpoint,
                change,
                start_to_close_timeout=_TEST_TIMEOUT,
                heartbeat_timeout=_HEARTBEAT_TIMEOUT,
                schedule_to_close_timeout=2 * _TEST_TIMEOUT,
                summary="test",
            )
        finally:
            self._open_tests -= 1
        found = self._endpoints.get(change.id)
        if found is not None and outcome.result is AttemptResult.DELIVERED:
            self._recover(found, "A test succeeded.")
        return outcome

    @test.validator
    def _validate_test(self, change: EndpointTestInput) -> None:
        self._check_exists(change.id)
        if self._open_tests >= MAX_OPEN_TESTS:
            raise ApplicationError(
                f"{MAX_OPEN_TESTS} tests of the tenant's endpoints are under way. Send the request again when one "
                "has ended.",
                type=ENDPOINT_TESTS_OPEN,
                next_retry_delay=_TESTS_RETRY_DELAY,
            )

    @workflow.signal(name="record_result", description="A delivery failed, or was accepted after failures.")
    def record_result(self, result: EndpointResult) -> None:
        """Disables the endpoint when it has failed for `DISABLE_AFTER`."""
        found, now = self._endpoints.get(result.id), workflow.now()
        if found is None or found.disabled is not None:
            return
        health = EndpointState() if result.succeeded else found.health.after_failure(now)
        if health != found.health:
            found = found.model_copy(update={"health": health})
            self._store(found)
        if health.has_failed_for(DISABLE_AFTER, now):
            self._disable(found, f"Every delivery has failed since {health.failing_since:%Y-%m-%d %H:%M} UTC.")

    def _disable(self, endpoint: WebhookEndpoint, reason: str) -> None:
        disabled = Disablement(at=workflow.now(), reason=reason)
        self._store(endpoint.model_copy(update={"disabled": disabled}))
        self._announce(ENDPOINT_DISABLED_TYPE, endpoint, reason)

    def _recover(self, endpoint: WebhookEndpoint, reason: str) -> None:
        if endpoint.disabled is not None:
            self._announce(ENDPOINT_ENABLED_TYPE, endpoint, reason)
        if endpoint.disabled is not None or endpoint.health != EndpointState():
            self._store(endpoint.model_copy(update={"disabled": None, "health": EndpointState()}))

    def _store(self, endpoint: WebhookEndpoint) -> None:
        changed = {endpoint.id: endpoint}
        if endpoint.is_default:
            for other in self._endpoints.values():
                if other.is_default and other.id != endpoint.id:
                    changed[other.id] = other.model_copy(update={"is_default": False})
        self._endpoints |= changed
        workflow.upsert_memo({f"{ENDPOINT_MEMO_PREFIX}{one_id}": one for one_id, one in changed.items()})

    def _edited(self, change: EditEndpointInput) -> WebhookEndpoint:
        values: Mapping[str, object] = {name: getattr(change.fields, name) for name in change.changed}
        return self._endpoints[change.id].model_copy(update=values)

    def _check_exists(self, endpoint_id: str) -> None:
        if endpoint_id not in self._endpoints:
            raise ApplicationError(f"The endpoint {endpoint_id} does not exist.", type=ENDPOINT_MISSING)

    def _check_name(self, endpoint: WebhookEndpoint) -> None:
        if any(one.name == endpoint.name and one.id != endpoint.id for one in self._endpoints.values()):
            raise ApplicationError(f"An endpoint named {endpoint.name} exists already.", type=ENDPOINT_EXISTS)

    def _check_size(self, endpoint: WebhookEndpoint) -> None:
        stored = {**self._endpoints, endpoint.id: endpoint}
        size = sum(len(one.model_dump_json(exclude_none=True)) for one in stored.values())
        if size > MAX_ENDPOINTS_BYTES:
            raise ApplicationError(
                f"The endpoints of a tenant are limited to {MAX_ENDPOINTS_BYTES:,} bytes of JSON; with this change "
                f"they have {size:,}. Remove some.",
                type=ENDPOINTS_FULL,
            )

    def _announce(self, event_type: str, endpoint: WebhookEndpoint, reason: str) -> None:
        self._event_count += 1
        self._unpublished.append(
            CloudEvent(
                specversion="1.0",
                id=f"{endpoint.id}-{self._event_count}",
                source=ENDPOINTS_SOURCE,
                type=event_type,
                subject=endpoint.name,
                time=workflow.now(),
                datacontenttype="application/json",
                data={"id": endpoint.id, "name": endpoint.name, "host": endpoint.host, "reason": reason},
            )
        )

    async def _publish(self, event: CloudEvent) -> None:
        try:
            await workflow.execute_activity_method(
                EventPublication.publish_events,
                PublishEventsInput(tenant=parse_tenant(workflow.info().workflow_id), events=[event]),
                start_to_close_timeout=timedelta(seconds=30),
                schedule_to_close_timeout=timedelta(hours=1),
                retry_policy=RetryPolicy(maximum_interval=timedelta(minutes=1)),
                summary=f"publish {event.type}",
            )
        except ActivityError as error:
            if is_cancelled_exception(error):
                raise
            # The endpoint shows its state even if the event cannot be published.
            workflow.logger.warning("publishing an endpoint's event failed", exc_info=error)
