"""Subscriptions: which events agents react to. Those of `sevenfold.toml` are shown here and changed there."""

from typing import Annotated, Any, Literal, NoReturn

from fastapi import APIRouter, Path, Response
from pydantic import Field
from temporalio.client import WithStartWorkflowOperation, WorkflowUpdateFailedError
from temporalio.common import WorkflowIDConflictPolicy
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError, RPCStatusCode

from sevenfold.adapters.events.webhook_secrets import seal_secret
from sevenfold.api.dependencies import API_PREFIX, Gateway, GatewayDep, TenantDep
from sevenfold.api.http.problem_docs import PROBLEMS
from sevenfold.api.http.problems import ProblemError, ProblemType, invalid_field, not_found
from sevenfold.api.http.strict_json import StrictJsonRoute
from sevenfold.api.runs.start import resolve_agent
from sevenfold.api.webhooks.requests import check_webhook
from sevenfold.contracts.event_filters import EventFilter
from sevenfold.contracts.events import event_task_queue
from sevenfold.contracts.payload import JsonObject, Payload
from sevenfold.contracts.subscriptions import (
    SUBSCRIPTION_EXISTS,
    SUBSCRIPTION_MISSING,
    SUBSCRIPTIONS_FULL,
    PutSubscriptionInput,
    RegistryState,
    Subscription,
    SubscriptionBody,
    SubscriptionName,
    SubscriptionRequest,
    SubscriptionWebhook,
    build_subscription,
    registry_workflow_id,
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
    stored = (await gateway.event_ingest.subscriptions.load_registry(tenant)).subscriptions
    views = {name: _to_view(subscription, "api") for name, subscription in stored.items()}
    views |= {
        name: _to_view(one, "configuration") for name, one in gateway.event_ingest.subscriptions.configured.items()
    }
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
    if name in gateway.event_ingest.subscriptions.configured:
        return _to_view(gateway.event_ingest.subscriptions.configured[name], "configuration")
    stored = (await gateway.event_ingest.subscriptions.load_registry(tenant)).subscriptions
    if name not in stored:
        raise not_found(f"A subscription {name}")
    return _to_view(stored[name], "api")


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
    subscription = _build_subscription(gateway, tenant, body, body.name)
    await _put(gateway, tenant, PutSubscriptionInput(subscription=subscription, create_only=True))
    response.headers["Location"] = f"{API_PREFIX}/subscriptions/{body.name}"
    return _to_view(subscription, "api")


@router.put(
    "/subscriptions/{name}",
    operation_id="putSubscription",
    summary="Put a subscription",
    response_model_exclude_none=True,
    responses={201: {"model": SubscriptionView, "description": "There was none of that name."}, **PROBLEMS},
)
async def put_subscription(
    name: Name, body: SubscriptionBody, gateway: GatewayDep, tenant: TenantDep, response: Response
) -> SubscriptionView:
    """In the place of the one that has the name, if there is one."""
    subscription = _build_subscription(gateway, tenant, body, name)
    if await _put(gateway, tenant, PutSubscriptionInput(subscription=subscription)):
        response.status_code = 201
    return _to_view(subscription, "api")


@router.delete(
    "/subscriptions/{name}",
    operation_id="deleteSubscription",
    summary="Remove a subscription",
    status_code=204,
    responses=PROBLEMS,
)
async def delete_subscription(name: Name, gateway: GatewayDep, tenant: TenantDep) -> None:
    """What it has begun goes on to its end."""
    _check_name_is_free(gateway, name)
    handle = gateway.client.get_workflow_handle(registry_workflow_id(tenant))
    try:
        await handle.execute_update("remove", name)
    except WorkflowUpdateFailedError as error:
        _raise_refusal(error)
    except RPCError as error:
        if error.status != RPCStatusCode.NOT_FOUND:
            raise
        raise not_found(f"A subscription {name}") from None


async def _put(gateway: Gateway, tenant: str, change: PutSubscriptionInput) -> bool:
    """Returns once it is kept: whether there was none of that name."""
    registry: WithStartWorkflowOperation[Any, None] = WithStartWorkflowOperation(
        "SubscriptionRegistry",
        RegistryState(),
        id=registry_workflow_id(tenant),
        task_queue=event_task_queue(gateway.task_queue),
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
        kind = {
            SUBSCRIPTION_EXISTS: ProblemType.SUBSCRIPTION_EXISTS,
            SUBSCRIPTIONS_FULL: ProblemType.SUBSCRIPTIONS_FULL,
            SUBSCRIPTION_MISSING: ProblemType.NOT_FOUND,
        }
        if cause.type in kind:
            raise ProblemError(kind[cause.type], cause.message) from None
    raise error


def _build_subscription(gateway: Gateway, tenant: str, body: SubscriptionBody, name: str) -> Subscription:
    """What is to be kept. Raises the problem of terms that cannot hold."""
    _check_name_is_free(gateway, name)
    agent = resolve_agent(gateway, body.agent)
    return build_subscription(body, name, agent, _build_webhook(gateway, tenant, body, name))


def _check_name_is_free(gateway: Gateway, name: str) -> None:
    if name in gateway.event_ingest.subscriptions.configured:
        detail = f"{name} stands in the gateway's sevenfold.toml. Change it there, or use another name."
        raise ProblemError(ProblemType.SUBSCRIPTION_FIXED, detail)


def _build_webhook(gateway: Gateway, tenant: str, body: SubscriptionBody, name: str) -> SubscriptionWebhook | None:
    if body.webhook_url is None:
        if body.webhook_secret is not None:
            raise invalid_field("/webhookUrl", "is missing: there is a secret, and nothing to sign")
        return None
    if body.webhook_secret is None:
        raise invalid_field("/webhookSecret", "is missing: receivers verify by it who posts")
    host, sealer = check_webhook(gateway, body.webhook_url)
    secret = body.webhook_secret.get_secret_value()
    return SubscriptionWebhook(
        url=body.webhook_url, host=host, sealed_secrets=seal_secret(sealer, tenant, name, secret)
    )


def _to_view(subscription: Subscription, origin: Literal["api", "configuration"]) -> SubscriptionView:
    known = {name: value for name, value in subscription if name != "webhook"}
    webhook = subscription.webhook
    return SubscriptionView(**known, origin=origin, webhook_url=webhook.url if webhook else None)
