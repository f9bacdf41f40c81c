"""Run tokens: `POST /runs/{id}/token` for a run that exists, `POST /tokens` for a stream that a browser starts."""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Response
from pydantic import Field

from sevenfold.adapters.access.run_tokens import RunToken, RunTokens
from sevenfold.api.dependencies import API_PREFIX, PrincipalDep, component
from sevenfold.api.http.problem_docs import PROBLEMS
from sevenfold.api.http.problems import ProblemError, ProblemType
from sevenfold.api.http.strict_json import StrictJsonRoute
from sevenfold.api.runs.dependencies import AgentsDep, RunReaderDep
from sevenfold.api.runs.router import RunId
from sevenfold.contracts.access.principals import SCOPE_OF_RUN_SCOPE, Principal, RunScope
from sevenfold.contracts.agents.interface import AgentName
from sevenfold.contracts.identity import new_id
from sevenfold.contracts.payload import Payload, RequestBody
from sevenfold.contracts.runs.run import ID_PREFIXES, Pattern

router = APIRouter(prefix=API_PREFIX, tags=["runs"], route_class=StrictJsonRoute)

_Seconds = Annotated[int, Field(ge=1, le=3_600, description="How long the token is valid.")]

RunTokensDep = Annotated[RunTokens | None, Depends(component("run_tokens"))]


class RunTokenRequest(RequestBody):
    """Body of `POST /runs/{id}/token`."""

    scopes: frozenset[Literal["stream", "read", "cancel"]] = Field(
        default=frozenset({"stream", "read"}), min_length=1, description="What the token permits."
    )
    seconds: _Seconds = 300


class StartTokenRequest(RequestBody):
    """Body of `POST /tokens`."""

    agent: AgentName | None = Field(default=None, description="The agent; the configured default if absent.")
    seconds: _Seconds = 300


class RunTokenView(Payload):
    """A run token, for `?token=` on the status, stream and cancellation of the run."""

    token: str
    run_id: str
    expires_at: datetime


@router.post(
    "/runs/{run_id}/token",
    operation_id="createRunToken",
    summary="Issue a token for a run",
    status_code=201,
    responses=PROBLEMS,
)
async def create_run_token(
    run_id: RunId,
    body: RunTokenRequest,
    reader: RunReaderDep,
    tokens: RunTokensDep,
    principal: PrincipalDep,
    response: Response,
) -> RunTokenView:
    """Issues a token for this run alone, for a browser. It ends with its time and with the key that issued it. A
    token cannot permit more than the key.
    """
    await reader.find(principal.tenant, run_id)
    return _issue(tokens, principal, response, run_id, frozenset(map(RunScope, body.scopes)), body.seconds)


@router.post(
    "/tokens",
    operation_id="createStartToken",
    summary="Issue a token to start a stream",
    status_code=201,
    responses=PROBLEMS,
)
async def create_start_token(
    body: StartTokenRequest, agents: AgentsDep, tokens: RunTokensDep, principal: PrincipalDep, response: Response
) -> RunTokenView:
    """Issues a token with which a browser may start one stream with this agent, by `POST /stream?token=…` or the
    WebSocket, and then follow, read and cancel it. Starting it again joins the same run.
    """
    agent = agents.resolve(principal.tenant, body.agent)
    run_id = new_id(ID_PREFIXES[Pattern.STREAMING])
    return _issue(tokens, principal, response, run_id, frozenset(RunScope) - {RunScope.STEP}, body.seconds, agent)


def _issue(
    tokens: RunTokens | None,
    principal: Principal,
    response: Response,
    run_id: str,
    scopes: frozenset[RunScope],
    seconds: int,
    agent: str | None = None,
) -> RunTokenView:
    if tokens is None:
        raise ProblemError(
            ProblemType.TOKENS_UNAVAILABLE,
            "This gateway cannot sign run tokens: set SEVENFOLD_SECRET_KEY for all its processes.",
        )
    missing = sorted({SCOPE_OF_RUN_SCOPE[one] for one in scopes if not principal.has(SCOPE_OF_RUN_SCOPE[one])})
    if missing:
        raise ProblemError(
            ProblemType.FORBIDDEN, f"The token cannot permit more than its key, which lacks {', '.join(missing)}."
        )
    end = datetime.now(UTC) + timedelta(seconds=seconds)
    if principal.expires_at is not None:
        end = min(end, principal.expires_at)
    token = RunToken(
        run_id=run_id,
        tenant=principal.tenant,
        key_id=principal.key_id,
        scopes=sorted(scopes),
        agent=agent,
        expires_at=int(end.timestamp()),
    )
    response.headers["Cache-Control"] = "no-store"
    return RunTokenView(
        token=tokens.sign(token), run_id=run_id, expires_at=datetime.fromtimestamp(token.expires_at, UTC)
    )
