"""Subscriptions: which events agents react to. Those of `sevenfold.toml` can be read here, but not changed."""

from typing import Annotated, Literal

from fastapi import APIRouter, Path, Response
from pydantic import Field

from sevenfold.api.dependencies import API_PREFIX, PrincipalDep, TenantDep
from sevenfold.api.events.dependencies import SubscriptionStoreDep
from sevenfold.api.events.subscription_store import SubscriptionStore
from sevenfold.api.http.problem_docs import PROBLEMS
from sevenfold.api.http.problems import not_found
from sevenfold.api.http.strict_json import StrictJsonRoute
from sevenfold.contracts.events.filters import EventFilter
from sevenfold.contracts.events.subscriptions import (
    PutSubscriptionInput,
    Subscription,
    SubscriptionBody,
    SubscriptionName,
    SubscriptionRequest,
)
from sevenfold.contracts.payload import JsonObject, Payload

router = APIRouter(prefix=API_PREFIX, tags=["event-driven"], route_class=StrictJsonRoute)

Name = Annotated[SubscriptionName, Path(description="The subscription's name.")]


class SubscriptionView(Payload):
    """A subscription. A webhook's secret is never shown."""

    name: str
    origin: Literal["api", "configuration"] = Field(description="Where it is stored and can be changed.")
    is_active: bool = Field(description="False while the tenant may not use the agent: it then matches no event.")
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
    webhook_endpoint: str | None = Field(default=None, description="The stored endpoint's name, or its old id.")
    webhook_url: str | None = Field(default=None, description="Without its query, which often is a credential.")


class SubscriptionList(Payload):
    """All subscriptions, by name."""

    items: list[SubscriptionView]
    next_cursor: str | None = None


@router.get(
    "/subscriptions",
    operation_id="listSubscriptions",
    summary="List subscriptions",
    response_model_exclude_none=True,
    responses=PROBLEMS,
)
async def list_subscriptions(store: SubscriptionStoreDep, tenant: TenantDep) -> SubscriptionList:
    """Lists the subscriptions as they are now."""
    stored = await store.load_stored(tenant)
    views = {name: await _to_view(store, tenant, one, "api") for name, one in stored.items()}
    views |= {
        name: await _to_view(store, tenant, one, "configuration")
        for name, one in store.configured_for(tenant).items()
    }
    return SubscriptionList(items=[views[name] for name in sorted(views)])


@router.get(
    "/subscriptions/{name}",
    operation_id="getSubscription",
    summary="Read a subscription",
    response_model_exclude_none=True,
    responses=PROBLEMS,
)
async def read_subscription(name: Name, store: SubscriptionStoreDep, tenant: TenantDep) -> SubscriptionView:
    """Returns the subscription as it is now."""
    configured = store.configured_for(tenant)
    if name in configured:
        return await _to_view(store, tenant, configured[name], "configuration")
    stored = await store.load_stored(tenant)
    if name not in stored:
        raise not_found(f"The subscription {name}")
    return await _to_view(store, tenant, stored[name], "api")


@router.post(
    "/subscriptions",
    operation_id="createSubscription",
    summary="Create a subscription",
    status_code=201,
    response_model_exclude_none=True,
    responses=PROBLEMS,
)
async def create_subscription(
    body: SubscriptionRequest, store: SubscriptionStoreDep, principal: PrincipalDep, response: Response
) -> SubscriptionView:
    """Creates a subscription, which takes effect in every process within a second."""
    tenant = principal.tenant
    subscription = await store.build(tenant, body, body.name)
    change = PutSubscriptionInput(subscription=subscription, create_only=True)
    await store.put(tenant, change, principal.api_key_id)
    response.headers["Location"] = f"{API_PREFIX}/subscriptions/{body.name}"
    return await _to_view(store, tenant, subscription, "api")


@router.put(
    "/subscriptions/{name}",
    operation_id="putSubscription",
    summary="Create or replace a subscription",
    response_model_exclude_none=True,
    responses={201: {"model": SubscriptionView, "description": "The subscription is new."}, **PROBLEMS},
)
async def put_subscription(
    name: Name, body: SubscriptionBody, store: SubscriptionStoreDep, principal: PrincipalDep, response: Response
) -> SubscriptionView:
    """Stores the subscription, in place of the one with this name if there is one."""
    tenant = principal.tenant
    subscription = await store.build(tenant, body, name)
    if await store.put(tenant, PutSubscriptionInput(subscription=subscription), principal.api_key_id):
        response.status_code = 201
    return await _to_view(store, tenant, subscription, "api")


@router.delete(
    "/subscriptions/{name}",
    operation_id="deleteSubscription",
    summary="Delete a subscription",
    status_code=204,
    responses=PROBLEMS,
)
async def delete_subscription(name: Name, store: SubscriptionStoreDep, tenant: TenantDep) -> None:
    """Deletes the subscription. Reactions that have started continue to their end."""
    await store.remove(tenant, name)


async def _to_view(
    store: SubscriptionStore, tenant: str, subscription: Subscription, origin: Literal["api", "configuration"]
) -> SubscriptionView:
    known = {name: value for name, value in subscription if name != "webhook"}
    webhook = subscription.webhook
    endpoint_id = webhook.endpoint_id if webhook else None
    names = await store.name_endpoints(tenant) if endpoint_id else {}
    return SubscriptionView(
        **known,
        origin=origin,
        is_active=store.cache.is_active(tenant, subscription),
        webhook_endpoint=names.get(endpoint_id, endpoint_id) if endpoint_id else None,
        webhook_url=store.show_webhook_url(tenant, subscription),
    )
