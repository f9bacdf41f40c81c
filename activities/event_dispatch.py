"""The activities that find what an event calls for, and have it begun."""

from collections.abc import Mapping, Sequence

from temporalio import activity
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

from activities.identity import own_workflow_id
from adapters.concurrency import few_at_once
from adapters.events.lanes import enter_lane, lanes
from adapters.events.matching import matches, reacting
from adapters.events.reactions import start_reaction
from adapters.events.subscription_book import SubscriptionBook
from adapters.events.webhook_secrets import sealed_anew
from adapters.sealing import Sealer, SealError
from contracts.agent import WorkflowTarget
from contracts.cloudevents import CloudEvent
from contracts.config import BrokerConfig
from contracts.events import (
    MOST_HOPS,
    Dispatch,
    EventInput,
    LaneEntry,
    LaneSignal,
    OutboundRoute,
    ReactionOrder,
    Turn,
    broker_queue,
    correlation_of,
    hops_of,
    reaction_id,
)
from contracts.identity import public_id, tenant_of
from contracts.subscriptions import Subscription
from contracts.webhooks import Webhook, webhook_queue


class EventDispatch:
    """Holds the subscriptions, and the routes to brokers. `budget`: so many events may come of one correlation.

    `interactions`: the ends of reactions are published as events."""

    def __init__(
        self,
        client: Client,
        task_queue: str,
        book: SubscriptionBook,
        brokers: Mapping[str, BrokerConfig],
        sealer: Sealer | None,
        webhook_schedule: Sequence[float],
        budget: int,
        *,
        targets: Mapping[str, WorkflowTarget],
        interactions: bool,
    ) -> None:
        self._client = client
        self._task_queue = task_queue
        self._book = book
        self._brokers = brokers
        self._sealer = sealer
        self._schedule = list(webhook_schedule)
        self._budget = budget
        self._targets = dict(targets)
        self._interactions = interactions

    @activity.defn
    async def dispatch_event(self, given: EventInput) -> Dispatch:
        """Starts the reactions that wait for no turn, and tells what else an event calls for, or why there shall be
        nothing (a local activity). Repeated, it finds begun what it had begun.
        """
        workflow = own_workflow_id()
        tenant, public = tenant_of(workflow), public_id(workflow)
        event = given.event
        refused = await self._loops(tenant, event, public)
        if refused is not None:
            return Dispatch(refused=refused)
        matched = reacting(await self._book.of(tenant), event)
        orders = [self._order(tenant, public, one, event) for one in matched]

        async def start(order: ReactionOrder) -> None:
            await self._start(workflow, event, order)

        await few_at_once(start, [order for order in orders if not order.lanes])
        return Dispatch(
            reactions={order.subscription: order.id for order in orders},
            in_turn=[order for order in orders if order.lanes],
            routes=self._routes(given),
        )

    @activity.defn
    async def start_reaction(self, turn: Turn) -> None:
        """Starts a reaction whose turn it is (a local activity)."""
        await self._start(own_workflow_id(), turn.event, turn.order)

    async def _start(self, workflow: str, event: CloudEvent, order: ReactionOrder) -> None:
        await start_reaction(self._client, self._task_queue, workflow, event, order, published=self._interactions)

    @activity.defn
    async def enter_lane(self, entry: LaneEntry) -> None:
        """Has an event wait for its turn (a local activity)."""
        await enter_lane(self._client, self._task_queue, [entry])

    @activity.defn
    async def signal(self, word: LaneSignal) -> bool:
        """False when there is no such workflow, or it has ended (a local activity: a signal by the workflow itself
        would cost another workflow task).
        """
        try:
            await self._client.get_workflow_handle(word.to).signal(word.signal, args=word.says)
        except RPCError as error:
            if error.status != RPCStatusCode.NOT_FOUND:
                raise
            return False
        return True

    async def _loops(self, tenant: str, event: CloudEvent, public: str) -> str | None:
        hops = hops_of(event)
        if hops > MOST_HOPS:
            return (
                f"It is {hops} events away from its origin, and at most {MOST_HOPS} may follow from each other: "
                "subscriptions that trigger each other in a circle. Narrow a filter."
            )
        if hops == 0:
            return None
        correlation = correlation_of(event, public)
        found = await self._client.count_workflows(
            f"WorkflowType = 'EventDriven' AND Tenant = '{tenant}' AND CorrelationId = '{correlation}'"
        )
        if found.count <= self._budget:
            return None
        return (
            f"More than {self._budget:,} events have come of {correlation} already: subscriptions that "
            "multiply each other's events. Narrow a filter."
        )

    def _order(self, tenant: str, event: str, subscription: Subscription, given: CloudEvent) -> ReactionOrder:
        reaction = reaction_id(tenant, event, subscription.name)
        return ReactionOrder(
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
            webhook=self._webhook(tenant, subscription, reaction),
            lanes=lanes(tenant, subscription, given),
        )

    def _webhook(self, tenant: str, subscription: Subscription, reaction: str) -> Webhook | None:
        """The subscription's webhook with its secrets sealed anew, for the reaction alone. Raises SealError, which
        has the activity tried again, as long as this worker has no key that fits.
        """
        webhook = subscription.webhook
        if webhook is None:
            return None
        if self._sealer is None:
            raise SealError("This worker has no SEVENFOLD_SECRET_KEY, and a subscription has a webhook.")
        return Webhook(
            url=webhook.url,
            host=webhook.host,
            sealed_secrets=sealed_anew(self._sealer, tenant, subscription.name, webhook.sealed_secrets, reaction),
            schedule=self._schedule,
            task_queue=webhook_queue(self._task_queue),
        )

    def _routes(self, given: EventInput) -> list[OutboundRoute]:
        """What came in from a broker is not sent back to it."""
        return [
            OutboundRoute(broker=name, to=out.to, task_queue=broker_queue(self._task_queue))
            for name, broker in self._brokers.items()
            if name != given.via
            for out in broker.publish
            if matches(out.filter, given.event, f"route {name} to {out.to}")
        ]
