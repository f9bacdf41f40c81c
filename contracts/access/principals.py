"""Tenants, scopes, and who sent a request."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Annotated

from pydantic import AfterValidator, Field

from sevenfold.contracts.identity import DEFAULT_TENANT, RESERVED_TENANTS, TENANT_PATTERN


def _check_reserved(name: str) -> str:
    if name in RESERVED_TENANTS:
        raise ValueError(f"{name} is reserved; choose another name")
    return name


TenantName = Annotated[str, Field(pattern=TENANT_PATTERN), AfterValidator(_check_reserved)]


# Of what people call a key: printable, so that it can be shown on a terminal.
NAME_PATTERN = r"^[^\x00-\x1f\x7f-\x9f]*$"


class Scope(StrEnum):
    """What a key may do. `admin` includes all others, for all tenants."""

    RUNS_WRITE = "runs:write"
    RUNS_READ = "runs:read"
    EVENTS_WRITE = "events:write"
    EVENTS_READ = "events:read"
    WEBHOOKS_WRITE = "webhooks:write"
    WEBHOOKS_READ = "webhooks:read"
    SCHEDULES_WRITE = "schedules:write"
    METRICS_READ = "metrics:read"
    ADMIN = "admin"


class RunScope(StrEnum):
    """What a run token may do with its run. `start`: start it, once. `step`: record its agent's steps; only agents
    get such a token.
    """

    START = "start"
    STREAM = "stream"
    READ = "read"
    CANCEL = "cancel"
    STEP = "step"


# The scope that a key needs to issue a run token with this scope.
SCOPE_OF_RUN_SCOPE = {
    RunScope.START: Scope.RUNS_WRITE,
    RunScope.CANCEL: Scope.RUNS_WRITE,
    RunScope.STEP: Scope.RUNS_WRITE,
    RunScope.STREAM: Scope.RUNS_READ,
    RunScope.READ: Scope.RUNS_READ,
}


@dataclass(frozen=True)
class RunGrant:
    """The limits of a run token: one run, and with `RunScope.START` the agent that it may start it with."""

    run_id: str
    scopes: frozenset[RunScope]
    agent: str | None = None


@dataclass(frozen=True)
class Principal:
    """Who sent a request.

    `key_id` is None for anonymous requests, to a gateway without keys. `expires_at`: until when the credential is
    valid. `run` is set for a run token, which may do nothing else; then `scopes` is empty. `lists_all`: lists show
    all tenants, because an administrator named none.
    """

    tenant: str
    scopes: frozenset[Scope]
    key_id: str | None = None
    expires_at: datetime | None = None
    run: RunGrant | None = None
    lists_all: bool = False

    @property
    def is_admin(self) -> bool:
        """Whether it may see all tenants."""
        return Scope.ADMIN in self.scopes

    @property
    def may_read_runs(self) -> bool:
        """Whether it may read runs, or with a run token its run."""
        return self.has(Scope.RUNS_READ) if self.run is None else RunScope.READ in self.run.scopes

    @property
    def may_answer(self) -> bool:
        """Whether it may answer the questions of runs; without it, links that need no key are hidden."""
        return self.run is None and self.has(Scope.RUNS_WRITE)

    @property
    def api_key_id(self) -> str | None:
        """The id of its API key, or of the one that issued its run token; None for an access token of an issuer."""
        return None if self.key_id is None or ":" in self.key_id else self.key_id

    def has(self, scope: Scope) -> bool:
        """Whether it has the scope."""
        return scope in self.scopes or Scope.ADMIN in self.scopes


ANONYMOUS = Principal(DEFAULT_TENANT, frozenset(Scope))
