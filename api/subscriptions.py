"""Subscriptions: which events agents react to. Those of `sevenfold.toml` are shown here and changed there."""

from typing import Annotated, Any, Literal, NoReturn

from fastapi import APIRouter, Path, Response
from pydantic import Field
from temporalio.client import WithStartWorkflowOperation, WorkflowUpdateFailedError
from temporalio.common import WorkflowIDConflictPolicy
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError, RPCStatusCode

from adapters.events.webhook_secrets import sealed_secrets
from api.gateway import API_PREFIX, Gateway, GatewayDep, TenantDep
from api.problem_docs import PROBLEMS
from api.problems import Kind, ProblemError, invalid, not_found
from api.starting import known_agent
from api.strict_json import StrictJsonRoute
from api.webhook_requests import checked_webhook
from contracts.event_filters import EventFilter
from contracts.events import event_queue
from contracts.payload import JsonObject, Payload
from contracts.subscriptions import (
    EXISTS,
    FULL,
    MISSING,
    RegistryState,
    Subscription,
    SubscriptionChange,
    SubscriptionName,
    SubscriptionRequest,
    SubscriptionTerms,
    SubscriptionWebhook,
    registry_of,
    subscription_of,
)

router = APIRouter(prefix=API_PREFIX, tags=["event-driven"], route_class=StrictJsonRoute)

Name = Annotated[SubscriptionName, Path(description="The subscription's name.")]


class SubscriptionView(Payload):
    """A subscription. A webhook's secret is never shown."""

    name: str
    origin: Literal["api", "configuration"] = Field(description="Where it is kept, and can be changed.")
    filter: EventFilter
    agent: str
    task: str
    params: JsonObject
    publishes: str | None = None
    publish_when: EventFilter | None = None
    order_by: str | None = None
    concurrency: int | None = None
    timeout: float
    max_attempts: int
    priority: int
    allow_self_trigger: bool
    webhook_url: str | None = None


class SubscriptionList(Payload):
    """All of them, by name."""

    items: list[SubscriptionView]
    next_cursor: str | None = None


@router.get(
    "/subscriptions",
    operation_id="listSubscriptions",
    summary="List subscriptions",
    response_model_exclude_none=True,
    responses=PROBLEMS,
)
async def list_subscriptions(gateway: GatewayDep, tenant: TenantDep) -> SubscriptionList:
    """Those that hold this moment."""
    kept = (await gateway.events.book.kept(tenant)).subscriptions
    views = {name: _view(subscription, "api") for name, subscription in kept.items()}
    views |= {name: _view(one, "configuration") for name, one in gateway.events.book.configured.items()}
    return SubscriptionList(items=[views[name] for name in sorted(views)])


@router.get(
    "/subscriptions/{name}",
    operation_id="getSubscription",
    summary="Read a subscription",
    response_model_exclude_none=True,
    responses=PROBLEMS,
)
async def read_subscription(name: Name, gateway: GatewayDep, tenant: TenantDep) -> SubscriptionView:
    """As it holds this moment."""
    if name in gateway.events.book.configured:
        return _view(gateway.events.book.configured[name], "configuration")
    kept = (await gateway.events.book.kept(tenant)).subscriptions
    if name not in kept:
        raise not_found(f"A subscription {name}")
    return _view(kept[name], "api")


@router.post(
    "/subscriptions",
    operation_id="createSubscription",
    summary="Subscribe an agent",
    status_code=201,
    response_model_exclude_none=True,
    responses=PROBLEMS,
)
async def create_subscription(
    body: SubscriptionRequest, gateway: GatewayDep, tenant: TenantDep, response: Response
) -> SubscriptionView:
    """Acts within a second, in every process."""
    subscription = _subscription(gateway, tenant, body, body.name)
    await _put(gateway, tenant, SubscriptionChange(subscription=subscription, must_be_new=True))
    response.headers["Location"] = f"{API_PREFIX}/subscriptions/{body.name}"
    return _view(subscription, "api")


@router.put(
    "/subscriptions/{name}",
    operation_id="putSubscription",
    summary="Put a subscription",
    response_model_exclude_none=True,
    responses={201: {"model": SubscriptionView, "description": "There was none of that name."}, **PROBLEMS},
)
async def put_subscription(
    name: Name, body: SubscriptionTerms, gateway: GatewayDep, tenant: TenantDep, response: Response
) -> SubscriptionView:
    """In the place of the one that has the name, if there is one."""
    subscription = _subscription(gateway, tenant, body, name)
    if await _put(gateway, tenant, SubscriptionChange(subscription=subscription)):
        response.status_code = 201
    return _view(subscription, "api")


@router.delete(
    "/subscriptions/{name}",
    operation_id="deleteSubscription",
    summary="Remove a subscription",
    status_code=204,
    responses=PROBLEMS,
)
async def delete_subscription(name: Name, gateway: GatewayDep, tenant: TenantDep) -> None:
    """What it has begun goes on to its end."""
    _check_free(gateway, name)
    handle = gateway.client.get_workflow_handle(registry_of(tenant))
    try:
        await handle.execute_update("remove", name)
    except WorkflowUpdateFailedError as error:
        _raise_refusal(error)
    except RPCError as error:
        if error.status != RPCStatusCode.NOT_FOUND:
            raise
        raise not_found(f"A subscription {name}") from None


async def _put(gateway: Gateway, tenant: str, change: SubscriptionChange) -> bool:
    """Returns once it is kept: whether there was none of that name."""
    registry: WithStartWorkflowOperation[Any, None] = WithStartWorkflowOperation(
        "SubscriptionRegistry",
        RegistryState(),
        id=registry_of(tenant),
        task_queue=event_queue(gateway.task_queue),
        id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
        static_summary="the subscriptions that the API keeps",
    )
    try:
        return bool(
            await gateway.client.execute_update_with_start_workflow(
                "put", change, start_workflow_operation=registry, result_type=bool
            )
        )
    except WorkflowUpdateFailedError as error:
        _raise_refusal(error)


def _raise_refusal(error: WorkflowUpdateFailedError) -> NoReturn:
    cause = error.cause
    if isinstance(cause, ApplicationError):
        kind = {EXISTS: Kind.SUBSCRIPTION_EXISTS, FULL: Kind.SUBSCRIPTIONS_FULL, MISSING: Kind.NOT_FOUND}
        if cause.type in kind:
            raise ProblemError(kind[cause.type], cause.message) from None
    raise error


def _subscription(gateway: Gateway, tenant: str, terms: SubscriptionTerms, name: str) -> Subscription:
    """What is to be kept. Raises the problem of terms that cannot hold."""
    _check_free(gateway, name)
    agent = known_agent(gateway, terms.agent)
    return subscription_of(terms, name, agent, _webhook(gateway, tenant, terms, name))


def _check_free(gateway: Gateway, name: str) -> None:
    if name in gateway.events.book.configured:
        detail = f"{name} stands in the gateway's sevenfold.toml. Change it there, or use another name."
        raise ProblemError(Kind.SUBSCRIPTION_FIXED, detail)


def _webhook(gateway: Gateway, tenant: str, terms: SubscriptionTerms, name: str) -> SubscriptionWebhook | None:
    if terms.webhook_url is None:
        if terms.webhook_secret is not None:
            raise invalid("/webhookUrl", "is missing: there is a secret, and nothing to sign")
        return None
    if terms.webhook_secret is None:
        raise invalid("/webhookSecret", "is missing: receivers verify by it who posts")
    host, sealer = checked_webhook(gateway, terms.webhook_url)
    secret = terms.webhook_secret.get_secret_value()
    return SubscriptionWebhook(
        url=terms.webhook_url, host=host, sealed_secrets=sealed_secrets(sealer, tenant, name, secret)
    )


def _view(subscription: Subscription, origin: Literal["api", "configuration"]) -> SubscriptionView:
    known = {name: value for name, value in subscription if name != "webhook"}
    webhook = subscription.webhook
    return SubscriptionView(**known, origin=origin, webhook_url=webhook.url if webhook else None)
