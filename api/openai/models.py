"""`GET /v1/models`: every agent that the key may use is a model."""

from typing import Any

from fastapi import APIRouter

from sevenfold.api.dependencies import TenantDep
from sevenfold.api.http.authorization import OPENAI_PREFIX
from sevenfold.api.http.problems import ProblemError, ProblemType
from sevenfold.api.runs.dependencies import AgentsDep

router = APIRouter(prefix=OPENAI_PREFIX, include_in_schema=False)


@router.get("/models")
async def list_models(agents: AgentsDep, tenant: TenantDep) -> dict[str, Any]:
    """Lists the agents."""
    return {"object": "list", "data": [_describe(name) for name in agents.list_names(tenant)]}


@router.get("/models/{name}")
async def read_model(name: str, agents: AgentsDep, tenant: TenantDep) -> dict[str, Any]:
    """Returns one. Raises 404."""
    if name not in agents.list_names(tenant):
        detail = f"There is no agent {name[:100]}. GET {OPENAI_PREFIX}/models lists them."
        raise ProblemError(ProblemType.NOT_FOUND, detail)
    return _describe(name)


def _describe(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "sevenfold"}
