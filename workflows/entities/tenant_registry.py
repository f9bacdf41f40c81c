"""Registry of the tenants and API keys that the admin API creates. One workflow per gateway, without an end."""

from collections.abc import Mapping
from datetime import timedelta

from temporalio import workflow
from temporalio.exceptions import ApplicationError

from sevenfold.contracts import workflow_types
from sevenfold.contracts.access.tenant_registry import (
    KEY_EXISTS,
    KEY_MEMO_PREFIX,
    KEY_MISSING,
    KEY_REPLACED,
    LAST_USE_MEMO,
    MAX_LAST_USES,
    MAX_TENANT_REGISTRY_BYTES,
    REGISTRY_FULL,
    TENANT_ERASED,
    TENANT_EXISTS,
    TENANT_MEMO_PREFIX,
    TENANT_MISSING,
    KeyRecord,
    LastUse,
    LimitKeyInput,
    PutKeyInput,
    PutTenantInput,
    RotateKeyInput,
    TenantRecord,
    TenantRegistryState,
    registry_memos,
)


@workflow.defn(name=workflow_types.TENANT_REGISTRY)
class TenantRegistry:
    """Keeps one memo per tenant and per key. Changes are updates, whose validators refuse without an event in the
    history.
    """

    @workflow.init
    def __init__(self, state: TenantRegistryState) -> None:
        self._tenants = dict(state.tenants)
        self._keys = dict(state.keys)
        self._last_use = dict(state.last_use.keys)
        self._renew_requested = False

    @workflow.run
    async def run(self, state: TenantRegistryState) -> None:
        """Serves changes; continues as new when Temporal suggests it, and on `renew`."""
        await workflow.wait_condition(lambda: self._renew_requested or workflow.info().is_continue_as_new_suggested())
        await workflow.wait_condition(workflow.all_handlers_finished)
        state = TenantRegistryState(tenants=self._tenants, keys=self._keys, last_use=LastUse(keys=self._last_use))
        workflow.continue_as_new(state, memo=registry_memos(state))

    @workflow.signal(name="renew", description="Encrypts state and memos with the first codec key.")
    def renew(self) -> None:
        """Sent at the start of a process whose first codec key is another one: continues as new."""
        self._renew_requested = True

    @workflow.update(name="put_tenant", description="Creates or replaces a tenant.")
    def put_tenant(self, change: PutTenantInput) -> None:
        """The validator rejects with `TENANT_EXISTS` (`create_only`), `TENANT_ERASED` (its data are being removed)
        and `REGISTRY_FULL`.
        """
        if change.create_only:  # Keys of an earlier tenant of this name must not come back.
            self._drop_keys(change.tenant.name)
        self._store_tenant(change.tenant)

    @put_tenant.validator
    def _validate_put_tenant(self, change: PutTenantInput) -> None:
        name = change.tenant.name
        if name in self._tenants and self._tenants[name].is_erasing and not change.tenant.is_erasing:
            raise ApplicationError(
                f"The data of the tenant {name} are being erased. Wait until that is done.", type=TENANT_ERASED
            )
        if change.create_only and name in self._tenants:
            raise ApplicationError(f"The tenant {name} exists already.", type=TENANT_EXISTS)
        if not change.tenant.is_erasing:  # A full registry must not prevent an erasure.
            self._check_size({**self._tenants, name: change.tenant}, self._keys)

    @workflow.update(name="remove_tenant", description="Removes a tenant, by its name, and its keys.")
    def remove_tenant(self, name: str) -> None:
        """Idempotent, so that an erasure can repeat it."""
        self._drop_keys(name)
        if self._tenants.pop(name, None) is not None:
            workflow.upsert_memo({f"{TENANT_MEMO_PREFIX}{name}": None})

    @workflow.update(name="put_key", description="Creates a key.")
    def put_key(self, change: PutKeyInput) -> None:
        """The validator rejects with `TENANT_MISSING`, `TENANT_ERASED`, `KEY_EXISTS` and `REGISTRY_FULL`."""
        self._store_key(change.key)

    @put_key.validator
    def _validate_put_key(self, change: PutKeyInput) -> None:
        name = change.key.tenant
        if name not in self._tenants and not change.is_tenant_configured:
            raise ApplicationError(f"The tenant {name} does not exist.", type=TENANT_MISSING)
        self._check_not_erasing(name)
        if change.key.id in self._keys:
            raise ApplicationError(f"The key {change.key.id} exists already.", type=KEY_EXISTS)
        self._check_size(self._tenants, {**self._keys, change.key.id: change.key})

    @workflow.update(name="rotate_key", description="Replaces a key by one with the same scopes.")
    def rotate_key(self, change: RotateKeyInput) -> KeyRecord:
        """Returns the new key. The old one expires after the overlap, or earlier if it would.

        The validator rejects with `KEY_MISSING`, `KEY_REPLACED` (it has expired or was rotated already: its successor
        would end with it), `TENANT_ERASED` and `REGISTRY_FULL`.
        """
        old, new = self._keys[change.key_id], self._build_successor(change)
        end = workflow.now() + timedelta(seconds=change.overlap_seconds)
        expires_at = end if old.expires_at is None else min(end, old.expires_at)
        self._store_key(new)
        self._store_key(old.model_copy(update={"expires_at": expires_at, "replaced_by": new.id}))
        return new

    @rotate_key.validator
    def _validate_rotate_key(self, change: RotateKeyInput) -> None:
        old = self._keys.get(change.key_id)
        if old is None or old.tenant != change.tenant:
            raise ApplicationError(f"The key {change.key_id} does not exist.", type=KEY_MISSING)
        self._check_not_erasing(old.tenant)
        if old.replaced_by is not None:
            detail = f"The key {old.id} was rotated already. Rotate its successor, {old.replaced_by}."
            raise ApplicationError(detail, type=KEY_REPLACED)
        if old.expires_at is not None and old.expires_at <= workflow.now():
            raise ApplicationError(f"The key {old.id} has expired. Create a new one.", type=KEY_REPLACED)
        self._check_size(self._tenants, {**self._keys, change.new_id: self._build_successor(change)})

    @workflow.update(name="limit_key", description="Replaces the quotas of a key.")
    def limit_key(self, change: LimitKeyInput) -> KeyRecord:
        """Returns the key. The validator rejects with `KEY_MISSING` and `REGISTRY_FULL`."""
        self._store_key(self._with_quotas(change))
        return self._keys[change.key_id]

    @limit_key.validator
    def _validate_limit_key(self, change: LimitKeyInput) -> None:
        key = self._keys.get(change.key_id)
        if key is None or key.tenant != change.tenant:
            raise ApplicationError(f"The key {change.key_id} does not exist.", type=KEY_MISSING)
        self._check_size(self._tenants, {**self._keys, change.key_id: self._with_quotas(change)})

    def _with_quotas(self, change: LimitKeyInput) -> KeyRecord:
        return self._keys[change.key_id].model_copy(update={"quotas": change.quotas})

    @workflow.update(name="remove_key", description="Revokes a key, by its id.")
    def remove_key(self, key_id: str) -> None:
        """Idempotent: a key that does not exist is revoked."""
        self._drop_key(key_id)

    @workflow.signal(name="record_use", description="Records when keys were last used.")
    def record_use(self, used: LastUse) -> None:
        """Keeps the latest time of each key."""
        newer = {key: at for key, at in used.keys.items() if key not in self._last_use or self._last_use[key] < at}
        if newer:
            latest = sorted({**self._last_use, **newer}.items(), key=lambda one: (one[1], one[0]))[-MAX_LAST_USES:]
            self._last_use = dict(sorted(latest))
            workflow.upsert_memo({LAST_USE_MEMO: LastUse(keys=self._last_use)})

    def _store_tenant(self, tenant: TenantRecord) -> None:
        self._tenants[tenant.name] = tenant
        workflow.upsert_memo({f"{TENANT_MEMO_PREFIX}{tenant.name}": tenant})

    def _store_key(self, key: KeyRecord) -> None:
        self._keys[key.id] = key
        workflow.upsert_memo({f"{KEY_MEMO_PREFIX}{key.id}": key})

    def _build_successor(self, change: RotateKeyInput) -> KeyRecord:
        old = self._keys[change.key_id]
        lineage = old.lineage or old.id
        changes = {"id": change.new_id, "hash": change.new_hash, "created_at": workflow.now(), "lineage": lineage}
        return old.model_copy(update=changes)

    def _check_not_erasing(self, tenant: str) -> None:
        if tenant in self._tenants and self._tenants[tenant].is_erasing:
            raise ApplicationError(f"The data of the tenant {tenant} are being erased.", type=TENANT_ERASED)

    def _drop_keys(self, tenant: str) -> None:
        for key in [key for key in self._keys.values() if key.tenant == tenant]:
            self._drop_key(key.id)

    def _drop_key(self, key_id: str) -> None:
        if self._keys.pop(key_id, None) is not None:
            workflow.upsert_memo({f"{KEY_MEMO_PREFIX}{key_id}": None})
        if self._last_use.pop(key_id, None) is not None:
            workflow.upsert_memo({LAST_USE_MEMO: LastUse(keys=self._last_use)})

    def _check_size(self, tenants: Mapping[str, TenantRecord], keys: Mapping[str, KeyRecord]) -> None:
        size = sum(len(one.model_dump_json(exclude_none=True)) for one in (*tenants.values(), *keys.values()))
        if size > MAX_TENANT_REGISTRY_BYTES:
            raise ApplicationError(
                f"Tenants and keys are limited to {MAX_TENANT_REGISTRY_BYTES:,} bytes of JSON; with this one they "
                f"have {size:,}. Revoke keys that are not used, or move some to sevenfold.toml.",
                type=REGISTRY_FULL,
            )
