"""The tenants and keys that the admin API creates: state and changes of the workflow `TenantRegistry`.

It keeps one memo per tenant and per key, so that reading it needs no worker and a change rewrites only its own memo.
"""

from datetime import datetime

from sevenfold.contracts.access.principals import Scope
from sevenfold.contracts.access.quotas import NO_QUOTAS, Quotas
from sevenfold.contracts.payload import Payload, Seconds

REGISTRY_WORKFLOW_ID = "tenants:registry"

# Prefixes of the memos that hold a TenantRecord and a KeyRecord; and the memo that holds a LastUse.
TENANT_MEMO_PREFIX = "tenant:"
KEY_MEMO_PREFIX = "key:"
LAST_USE_MEMO = "last-use"

# Number of keys whose last use is kept, the latest first.
MAX_LAST_USES = 5_000

# Size limit of all records as JSON: some 2,000 keys. Every process reads them while requests arrive.
MAX_TENANT_REGISTRY_BYTES = 500_000

# Failure types of rejected changes, which the API maps to problems.
TENANT_EXISTS, TENANT_MISSING, TENANT_ERASED, KEY_EXISTS, KEY_MISSING, KEY_REPLACED, REGISTRY_FULL = (
    "TenantExists",
    "TenantMissing",
    "TenantErased",
    "KeyExists",
    "KeyMissing",
    "KeyReplaced",
    "RegistryFull",
)


class TenantRecord(Payload):
    """A tenant. `agents` names those that it may use; None for all. `is_erasing`: its data are being removed, and
    its keys are refused.
    """

    name: str
    agents: list[str] | None = None
    weight: float = 1.0
    quotas: Quotas = NO_QUOTAS
    created_at: datetime
    is_erasing: bool = False


class KeyRecord(Payload):
    """A key without its secret. `hash`: see `sevenfold.contracts.access.api_keys`. `replaced_by`: the key that a
    rotation created; this one then expires. `lineage`: the first key of those that replaced each other, with which it
    shares its quotas; None for a first one.
    """

    id: str
    tenant: str
    hash: str
    scopes: list[Scope]
    name: str = ""
    quotas: Quotas = NO_QUOTAS
    created_at: datetime
    expires_at: datetime | None = None
    replaced_by: str | None = None
    lineage: str | None = None


class LastUse(Payload):
    """The last use of each key, by its id, to the minute. Keys of `sevenfold.toml` are in it too."""

    keys: dict[str, datetime] = {}


class TenantRegistryState(Payload):
    """Input of `TenantRegistry`."""

    tenants: dict[str, TenantRecord] = {}
    keys: dict[str, KeyRecord] = {}
    last_use: LastUse = LastUse()


class PutTenantInput(Payload):
    """A tenant to create or replace. `create_only`: fails if the name exists."""

    tenant: TenantRecord
    create_only: bool = False


class PutKeyInput(Payload):
    """A key to create. `is_tenant_configured`: its tenant stands in `sevenfold.toml`, which the registry does not
    know.
    """

    key: KeyRecord
    is_tenant_configured: bool = False


class LimitKeyInput(Payload):
    """The quotas that a key has from now on."""

    tenant: str
    key_id: str
    quotas: Quotas


class RotateKeyInput(Payload):
    """A key to replace by one with another id and hash. The old one works for `overlap_seconds` more."""

    tenant: str
    key_id: str
    new_id: str
    new_hash: str
    overlap_seconds: Seconds


def registry_memos(state: TenantRegistryState) -> dict[str, Payload]:
    """Returns the memos of all records."""
    tenants = {f"{TENANT_MEMO_PREFIX}{name}": one for name, one in state.tenants.items()}
    keys = {f"{KEY_MEMO_PREFIX}{key_id}": one for key_id, one in state.keys.items()}
    return {**tenants, **keys, LAST_USE_MEMO: state.last_use}
