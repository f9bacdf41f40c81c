"""Dependencies that several rooms of the API share. Each room defines its own beside these.

The composition (`components.py`) stores every object in `app.state` under one name; a dependency reads it from there.
All dependencies are async functions: FastAPI runs a plain function in a thread, which costs a detour per request.
"""

from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import Depends
from starlette.requests import HTTPConnection
from temporalio.client import Client

from sevenfold.contracts.access.principals import Principal
from sevenfold.contracts.identity import build_workflow_id

API_PREFIX = "/api/agent"

# Who sent the current request. `api/http/authentication.py` sets it before a handler runs; there is no default, so
# that a route outside of the authentication fails.
current_principal: ContextVar[Principal] = ContextVar("principal")


def component(name: str) -> Callable[[HTTPConnection], Awaitable[Any]]:
    """Returns the dependency on one object of the composition, by its name in `app.state`."""

    async def read(connection: HTTPConnection) -> Any:
        return getattr(connection.app.state, name)

    vars(read)["component"] = name
    return read


@dataclass(frozen=True)
class TemporalUi:
    """Builds links to the Temporal UI. `url` has no trailing slash; without it there are no links."""

    url: str | None
    namespace: str

    def link(self, tenant: str, public_id: str) -> str | None:
        """Returns the page of a run, event or delivery, for administrators. The UI shows all tenants."""
        if self.url is None or not current_principal.get().is_admin:
            return None
        workflow_id = quote(build_workflow_id(tenant, public_id), safe="")
        return f"{self.url}/namespaces/{quote(self.namespace, safe='')}/workflows/{workflow_id}"


async def _principal() -> Principal:
    return current_principal.get()


async def _tenant() -> str:
    return current_principal.get().tenant


async def _listed_tenant() -> str | None:
    principal = current_principal.get()
    return None if principal.lists_all else principal.tenant


PrincipalDep = Annotated[Principal, Depends(_principal)]
# Whose runs, events, … the request is about; an administrator names another tenant by `?tenant=`.
TenantDep = Annotated[str, Depends(_tenant)]
# The tenant whose items a list shows; None: all, for an administrator who names none.
ListedTenantDep = Annotated[str | None, Depends(_listed_tenant)]
ClientDep = Annotated[Client, Depends(component("client"))]
# The main task queue; the names of the others are derived from it.
TemporalUiDep = Annotated[TemporalUi, Depends(component("temporal_ui"))]
