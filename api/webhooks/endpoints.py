"""Stored webhook endpoints: create, list, read, change, delete, rotate, test, disable and enable them."""

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Response

from sevenfold.api.dependencies import API_PREFIX, ClientDep, TenantDep, component
from sevenfold.api.http.problem_docs import PROBLEMS
from sevenfold.api.http.strict_json import StrictJsonRoute
from sevenfold.api.webhooks.endpoint_statistics import load_statistics
from sevenfold.api.webhooks.endpoint_store import EndpointStore
from sevenfold.api.webhooks.endpoint_views import (
    EndpointChange,
    EndpointDetail,
    EndpointList,
    EndpointRequest,
    EndpointTestView,
    EndpointView,
    NewSecretView,
    RotateSecretRequest,
)
from sevenfold.contracts.webhooks.delivery import AttemptResult

router = APIRouter(prefix=f"{API_PREFIX}/webhooks/endpoints", tags=["webhooks"], route_class=StrictJsonRoute)

EndpointStoreDep = Annotated[EndpointStore, Depends(component("endpoint_store"))]
EndpointId = Annotated[str, Path(description="An endpoint's id, such as `whe_…`.")]

_ROTATED_AS_USUAL = RotateSecretRequest()
_NO_STORE = {"Cache-Control": "no-store"}


@router.post(
    "", operation_id="createEndpoint", summary="Create a webhook endpoint", status_code=201, responses=PROBLEMS
)
async def create_endpoint(
    body: EndpointRequest, store: EndpointStoreDep, tenant: TenantDep, response: Response
) -> NewSecretView:
    """Creates an endpoint. This answer alone has its secret: keep it."""
    endpoint, secret = await store.create(tenant, body)
    response.headers.update(_NO_STORE)
    response.headers["Location"] = f"{API_PREFIX}/webhooks/endpoints/{endpoint.id}"
    return NewSecretView(**dict(store.view(tenant, endpoint)), secret=secret)


@router.get("", operation_id="listEndpoints", summary="List webhook endpoints", responses=PROBLEMS)
async def list_endpoints(store: EndpointStoreDep, tenant: TenantDep) -> EndpointList:
    """Lists the endpoints as they are now."""
    return EndpointList(items=[store.view(tenant, one) for one in await store.list_all(tenant)])


@router.get("/{endpoint_id}", operation_id="getEndpoint", summary="Read a webhook endpoint", responses=PROBLEMS)
async def read_endpoint(
    endpoint_id: EndpointId, store: EndpointStoreDep, client: ClientDep, tenant: TenantDep
) -> EndpointDetail:
    """Returns the endpoint with the figures of its latest deliveries."""
    endpoint = await store.find(tenant, endpoint_id)
    statistics = await load_statistics(client, tenant, endpoint.id)
    return EndpointDetail(**dict(store.view(tenant, endpoint)), statistics=statistics)


@router.patch(
    "/{endpoint_id}", operation_id="changeEndpoint", summary="Change a webhook endpoint", responses=PROBLEMS
)
async def change_endpoint(
    endpoint_id: EndpointId, body: EndpointChange, store: EndpointStoreDep, tenant: TenantDep
) -> EndpointView:
    """Changes the fields that the body names. Open deliveries go to the new URL."""
    return store.view(tenant, await store.edit(tenant, endpoint_id, body))


@router.delete(
    "/{endpoint_id}",
    operation_id="deleteEndpoint",
    summary="Delete a webhook endpoint",
    status_code=204,
    response_class=Response,
    responses=PROBLEMS,
)
async def delete_endpoint(endpoint_id: EndpointId, store: EndpointStoreDep, tenant: TenantDep) -> None:
    """Deletes the endpoint. Its open deliveries become dead letters at their next attempt."""
    await store.remove(tenant, endpoint_id)


@router.post(
    "/{endpoint_id}/rotate", operation_id="rotateEndpointSecret", summary="Rotate a secret", responses=PROBLEMS
)
async def rotate_secret(
    endpoint_id: EndpointId,
    store: EndpointStoreDep,
    tenant: TenantDep,
    response: Response,
    body: RotateSecretRequest = _ROTATED_AS_USUAL,
) -> NewSecretView:
    """Creates a secret, which this answer alone has. Until `overlapSeconds` (24 h) have passed, both sign every
    delivery; with 0 the previous ones stop signing now.
    """
    endpoint, secret = await store.rotate(tenant, endpoint_id, body.overlap_seconds)
    response.headers.update(_NO_STORE)
    return NewSecretView(**dict(store.view(tenant, endpoint)), secret=secret)


@router.post("/{endpoint_id}/test", operation_id="testEndpoint", summary="Send a sample", responses=PROBLEMS)
async def test_endpoint(endpoint_id: EndpointId, store: EndpointStoreDep, tenant: TenantDep) -> EndpointTestView:
    """Posts a signed sample and returns the receiver's answer. A 2xx answer enables the endpoint."""
    webhook_id, outcome = await store.test(tenant, endpoint_id)
    attempt = outcome.attempt
    return EndpointTestView(
        succeeded=outcome.result is AttemptResult.DELIVERED,
        webhook_id=webhook_id,
        status=attempt.status if attempt else None,
        milliseconds=attempt.milliseconds if attempt else 0,
        answer=attempt.answer if attempt else "",
        reason=outcome.reason or None,
    )


@router.post(
    "/{endpoint_id}/disable", operation_id="disableEndpoint", summary="Disable an endpoint", responses=PROBLEMS
)
async def disable_endpoint(endpoint_id: EndpointId, store: EndpointStoreDep, tenant: TenantDep) -> EndpointView:
    """Stops deliveries: they become dead letters."""
    return store.view(tenant, await store.disable(tenant, endpoint_id))


@router.post("/{endpoint_id}/enable", operation_id="enableEndpoint", summary="Enable an endpoint", responses=PROBLEMS)
async def enable_endpoint(endpoint_id: EndpointId, store: EndpointStoreDep, tenant: TenantDep) -> EndpointView:
    """Resumes deliveries, and forgets the failures. Dead letters are not sent again by themselves."""
    return store.view(tenant, await store.enable(tenant, endpoint_id))
