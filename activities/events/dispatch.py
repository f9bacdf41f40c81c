"""Activities that match an event to subscriptions and broker routes, and start its reactions."""

from collections.abc import Mapping, Sequence

from temporalio import activity
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

from sevenfold.activities.identity import current_workflow_id
from sevenfold.adapters.encryption.sealing import Sealer, SealError
from sevenfold.adapters.events.matching import find_matching, matches
from sevenfold.adapters.events.ordering import acquire_semaphore, semaphores_for
from sevenfold.adapters.events.reactions import start_reaction
from sevenfold.adapters.events.subscription_cache import SubscriptionCache
from sevenfold.adapters.events.webhook_secrets import reseal_for_reaction, reseal_url_for_reaction
from sevenfold.adapters.temporal.concurrency import gather_bounded
from sevenfold.adapters.webhooks.endpoint_directory import EndpointDirectory
from sevenfold.contracts import workflow_types
from sevenfold.contracts.agents.interface import WorkflowTarget
from sevenfold.contracts.config.brokers import BrokerConfig
from sevenfold.contracts.events.cloudevents import CloudEvent
from sevenfold.contracts.events.event_driven import (
    MAX_HOPS,
    Dispatch,
    EventInput,
    Grant,
    OutboundRoute,
    ReactionSpec,
    SemaphoreRequest,
    SignalInput,
    broker_task_queue,
    build_reaction_id,
    count_hops,
    find_correlation_id,
)
from sevenfold.contracts.events.subscriptions import Subscription
from sevenfold.contracts.identity import parse_public_id, parse_tenant
from sevenfold.contracts.webhooks.delivery import Webhook, WebhookEvent, webhook_task_queue


class EventDispatch:
    """Matches events and starts their reactions.

    `budget` is the maximum of events per correlation. With `publish_interactions` the end of each reaction is
    published as an event.
    """

    def __init__(
        self,
        client: Client,
        task_queue: str,
        subscriptions: SubscriptionCache,
        brokers: Mapping[str, BrokerConfig],
        sealer: Sealer | None,
        endpoints: EndpointDirectory,
        webhook_schedule: Sequence[float],
        budget: int,
        *,
        targets: Mapping[str, WorkflowTarget],
        publish_interactions: bool,
    ) -> None:
        self._client = client
        self._task_queue = task_queue
        self._subscriptions = subscriptions
        self._brokers = brokers
        self._sealer = sealer
        self._endpoints = endpoints
        self._schedule = list(webhook_schedule)
        self._budget = budget
        self._targets = dict(targets)
        self._publish_interactions = publish_interactions

    @activity.defn(name="dispatch_event")
    async def dispatch_event(self, event_input: EventInput) -> Dispatch:
        """Starts the reactions without an ordering semaphore and returns the others, the broker routes, or the reason
        for refusing the event (a local activity).

        Idempotent: reactions that exist already stay unchanged.
        """
        workflow_id = current_workflow_id()
        tenant, public_id = parse_tenant(workflow_id), parse_public_id(workflow_id)
        event = event_input.event
        refusal = await self._check_loop(tenant, event, public_id)
        if refusal is not None:
            return Dispatch(refusal=refusal)
        matched = find_matching(await self._subscriptions.list_for(tenant), event)
        specs = [await self._build_spec(tenant, public_id, one, event) for one in matched]

        async def start(spec: ReactionSpec) -> None:
            await self._start_reaction(workflow_id, event, spec, event_input.trace)

        await gather_bounded(start, [spec for spec in specs if not spec.semaphores])
        return Dispatch(
            reactions={spec.subscription: spec.id for spec in specs},
            queued_reactions=[spec for spec in specs if spec.semaphores],
            routes=self._find_routes(tenant, event_input),
        )

    @activity.defn(name="start_reaction")
    async def start_reaction(self, grant: Grant) -> None:
        """Starts a reaction that holds its semaphores (a local activity). Idempotent."""
        await self._start_reaction(current_workflow_id(), grant.event, grant.spec, grant.traceparent)

    async def _start_reaction(self, workflow_id: str, event: CloudEvent, spec: ReactionSpec, trace: str) -> None:
        await start_reaction(
            self._client,
            self._task_queue,
            workflow_id,
            event,
            spec,
            traceparent=trace,
            publish_interaction=self._publish_interactions,
        )

    @activity.defn(name="acquire_semaphore")
    async def acquire_semaphore(self, request: SemaphoreRequest) -> None:
        """Requests a semaphore for an event (a local activity). Idempotent."""
        await acquire_semaphore(self._client, self._task_queue, [request])

    @activity.defn(name="signal_workflow")
    async def signal_workflow(self, signal_input: SignalInput) -> bool:
        """Signals a workflow; returns False if it does not exist or has ended.

        A local activity, because a signal command of the workflow itself would cost another workflow task.
        """
        try:
            await self._client.get_workflow_handle(signal_input.workflow_id).signal(
                signal_input.signal, args=signal_input.arguments
            )
        except RPCError as error:
            if error.status != RPCStatusCode.NOT_FOUND:
                raise
            return False
        return True

    async def _check_loop(self, tenant: str, event: CloudEvent, public_id: str) -> str | None:
        hops = count_hops(event)
        if hops > MAX_HOPS:
            return (
                f"The event is {hops} hops away from its origin; the limit is {MAX_HOPS}. Subscriptions trigger each "
                "other in a loop: narrow a filter."
            )
        if hops == 0:
            return None
        correlation = find_correlation_id(event, public_id)
        found = await self._client.count_workflows(
            f"WorkflowType = '{workflow_types.EVENT_DRIVEN}' AND Tenant = '{tenant}' "
            f"AND CorrelationId = '{correlation}'"
        )
        if found.count <= self._budget:
            return None
        return (
            f"The correlation {correlation} has more than {self._budget:,} events (SEVENFOLD_EVENT_BUDGET). "
            "Subscriptions multiply each other's events: narrow a filter."
        )

    async def _build_spec(
        self, tenant: str, event: str, subscription: Subscription, cloud_event: CloudEvent
    ) -> ReactionSpec:
        reaction = build_reaction_id(tenant, event, subscription.name)
        return ReactionSpec(
            id=reaction,
            subscription=subscription.name,
            agent=subscription.agent,
            target=self._targets.get(subscription.agent),
            task=subscription.task,
            params=subscription.params,
            publishes=subscription.publishes,
            publish_when=subscription.publish_when,
            timeout=subscription.timeout,
            max_attempts=subscription.max_attempts,
            priority=subscription.priority,
            webhook=await self._build_webhook(tenant, subscription, reaction),
            semaphores=semaphores_for(tenant, subscription, cloud_event),
        )

    async def _build_webhook(self, tenant: str, subscription: Subscription, reaction: str) -> Webhook | None:
        """Returns the subscription's webhook with its secrets resealed for this reaction only.

        Raises SealError, which makes Temporal retry the activity, while this worker has no matching key.
        """
        webhook = subscription.webhook
        if webhook is None:
            return None
        if webhook.endpoint_id is not None:
            return await self._build_stored(tenant, webhook.endpoint_id, webhook.host)
        if self._sealer is None:
            raise SealError(
                "This worker has no SEVENFOLD_SECRET_KEY, which the subscription's webhook needs. Set it."
            )
        return Webhook(
            sealed_url=reseal_url_for_reaction(self._sealer, tenant, subscription.name, webhook, reaction),
            host=webhook.host,
            sealed_secrets=reseal_for_reaction(
                self._sealer, tenant, subscription.name, webhook.sealed_secrets, reaction
            ),
            schedule=self._schedule,
            task_queue=webhook_task_queue(self._task_queue),
        )

    async def _build_stored(self, tenant: str, endpoint_id: str, host: str) -> Webhook:
        """Returns a stored endpoint's webhook. One that was deleted gets the outcome, which becomes a dead letter."""
        endpoint = await self._endpoints.find(tenant, endpoint_id)
        return Webhook(
            host=endpoint.host if endpoint else host,
            schedule=self._schedule,
            task_queue=webhook_task_queue(self._task_queue),
            endpoint_id=endpoint_id,
            events=endpoint.events if endpoint else [WebhookEvent.COMPLETED],
        )

    def _find_routes(self, tenant: str, event_input: EventInput) -> list[OutboundRoute]:
        """Returns the tenant's routes that match, and that of a reply. An event that came from a broker is not sent
        back to it.
        """
        replies = [event_input.reply_route] if event_input.reply_route is not None else []
        return replies + [
            OutboundRoute(broker=name, to=out.to, task_queue=broker_task_queue(self._task_queue), format=out.format)
            for name, broker in self._brokers.items()
            if name != event_input.via
            for out in broker.publish
            if tenant in out.tenants and matches(out.filter, event_input.event, f"route {name} to {out.to}")
        ]
