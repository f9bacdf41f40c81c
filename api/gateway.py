"""What every door needs: the Temporal client and a few names. Handlers get it, and the tenant, as parameters."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Annotated
from urllib.parse import quote

from fastapi import Depends, Request
from temporalio.client import Client

from api.durations import Durations
from api.watching import Watches
from contracts.identity import DEFAULT_TENANT, workflow_id

API_PREFIX = "/api/agent"


@dataclass(frozen=True)
class Gateway:
    """Built once by the composition root."""

    client: Client
    task_queue: str
    agents: Collection[str]
    default_agent: str
    # Without a slash at its end; None where the Temporal UI's address is not known.
    ui_url: str | None
    # By agent: the tasks for which it takes a whole list.
    whole_lists: Mapping[str, Collection[str]]
    durations: Durations
    watches: Watches = field(default_factory=Watches)

    def ui_link(self, tenant: str, run_id: str) -> str | None:
        """The run's page in the Temporal UI."""
        if self.ui_url is None:
            return None
        run = quote(workflow_id(tenant, run_id), safe="")
        return f"{self.ui_url}/namespaces/{quote(self.client.namespace, safe='')}/workflows/{run}"


# Dependencies are async, all of them: FastAPI runs a plain function in a thread, a detour of its own per request.
async def _gateway(request: Request) -> Gateway:
    gateway: Gateway = request.app.state.gateway
    return gateway


async def _tenant() -> str:
    # One tenant until keys are configured; ids, search attributes and fairness carry it already.
    return DEFAULT_TENANT


GatewayDep = Annotated[Gateway, Depends(_gateway)]
TenantDep = Annotated[str, Depends(_tenant)]
