"""Quotas of tenants and keys: what they may use, as it is configured and as it is stored."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

from pydantic import BaseModel, Field

from sevenfold.contracts.agents.config import Rate, format_rate
from sevenfold.contracts.payload import Payload, RequestBody

_Count = Annotated[int, Field(ge=0, le=1_000_000_000, strict=True)]
_Bytes = Annotated[int, Field(ge=0, le=10**15, strict=True)]
_Tokens = Annotated[int, Field(ge=0, le=10**15, strict=True)]
_Usd = Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False, strict=True)]


# Its usage is counted by tenant, and such a key works for all.
ADMIN_BUDGET = "a key with the scope admin has no budget: it works for all tenants"


class QuotaName(StrEnum):
    """What a quota limits, as it is named in problems and headers."""

    REQUESTS = "requests"
    OPEN_RUNS = "open-runs"
    QUEUED_ITEMS = "queued-items"
    STREAMS = "streams"
    SUBSCRIPTIONS = "subscriptions"
    EVENTS = "events"
    STORED_BYTES = "stored-bytes"
    TOKENS = "tokens"
    USD = "usd"


class Budget(RequestBody):
    """What runs may use in a day, UTC: tokens of models, and US dollars by the agents' prices."""

    tokens: _Tokens | None = None
    usd: _Usd | None = None


class Quotas(Payload):
    """Quotas as they are stored and checked; None is unlimited. Rates are per second."""

    rate: float | None = None
    events: float | None = None
    open_runs: int | None = None
    queued_items: int | None = None
    streams: int | None = None
    subscriptions: int | None = None
    stored_bytes: int | None = None
    budget: Budget | None = None


NO_QUOTAS = Quotas()


class QuotaFields(BaseModel):
    """Quotas of a tenant or a key, as they are written in `sevenfold.toml` and in requests."""

    rate: Rate | None = Field(default=None, description='Requests, such as "100/s", "30/m" or "1000/h".')
    events: Rate | None = Field(
        default=None, description='Events with the reactions that they start, such as "600/m".'
    )
    open_runs: _Count | None = Field(default=None, description="Runs that are open at the same time.")
    queued_items: _Count | None = Field(
        default=None, description="Items of open jobs that have no result yet; a job without items counts as one."
    )
    streams: _Count | None = Field(default=None, description="Streams that are open at the same time.")
    subscriptions: _Count | None = Field(default=None, description="Subscriptions that it stored by the API.")
    stored_bytes: _Bytes | None = Field(
        default=None, description="Bytes in the store of large payloads (those over 256 kB)."
    )
    budget: Budget | None = Field(
        default=None, description="Tokens and US dollars that agents may use in a day, UTC."
    )

    @property
    def has_usd_budget(self) -> bool:
        """Whether it needs the prices of agents."""
        return self.budget is not None and self.budget.usd is not None

    def build_quotas(self) -> Quotas:
        """Returns the quotas."""
        return Quotas(**{name: getattr(self, name) for name in Quotas.model_fields})


class QuotaView(Payload):
    """The quotas of a tenant or a key as the API shows them; null is unlimited."""

    rate: str | None = Field(description="Requests, such as `100/s`.")
    events: str | None = Field(description="Events with their reactions, such as `600/m`.")
    open_runs: int | None
    queued_items: int | None
    streams: int | None
    subscriptions: int | None
    stored_bytes: int | None
    budget: Budget | None


def view_quotas(quotas: Quotas) -> dict[str, object]:
    """Returns the fields of a view, with rates as they are written."""
    rates = {"rate": quotas.rate, "events": quotas.events}
    written = {name: None if rate is None else format_rate(rate) for name, rate in rates.items()}
    return {**dict(quotas), **written}


class OwnerKind(StrEnum):
    """Whose quota it is."""

    TENANT = "tenant"
    KEY = "key"


@dataclass(frozen=True)
class QuotaOwner:
    """A tenant, or one of its keys, with its quotas. `name`: of the tenant, or the id of the key's lineage."""

    kind: OwnerKind
    name: str
    tenant: str
    quotas: Quotas

    @property
    def key_id(self) -> str | None:
        """The id of the key; None for a tenant."""
        return self.name if self.kind is OwnerKind.KEY else None

    def policy(self, quota: QuotaName) -> str:
        """Returns the name of one of its quotas in problems and headers, such as `tenant-open-runs`."""
        return f"{self.kind}-{quota}"
