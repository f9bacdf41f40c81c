"""Registry of the tenants and API keys that the admin API creates. One workflow per gateway, without an end."""

from collections.abc import Mapping

from temporalio import workflow
from temporalio.exceptions import ApplicationError

from sevenfold.contracts.tenant_registry import (
    KEY_EXISTS,
    KEY_MEMO_PREFIX,
    KEY_MISSING,
    LAST_USE_MEMO,
    MAX_REGISTRY_BYTES,
    REGISTRY_FULL,
    TENANT_ERASED,
    TENANT_EXISTS,
    TENANT_MEMO_PREFIX,
    KeyRecord,
    LastUse,
    PutKeyInput,
    PutTenantInput,
    RegistryState,
    TenantRecord,
    registry_memos,
)


@workflow.defn(name="TenantRegistry")
class TenantRegistry:
    """Keeps one memo per tenant and per key. Changes are updates, whose validators refuse without an event in the
    history.
    """

    @workflow.init
    def __init__(self, state: RegistryState) -> None:
        self._tenants = dict(state.tenants)
        self._keys = dict(state.keys)
        self._last_use = dict(state.last_use.keys)
        self._renew_requested = False

    @workflow.run
    async def run(self, state: RegistryState) -> None:
        """Serves changes; continues as new when Temporal suggests it, and on `renew`."""
        await workflow.wait_condition(lambda: self._renew_requested or workflow.info().is_continue_as_new_suggested())
        await workflow.wait_condition(workflow.all_handlers_finished)
        state = RegistryState(tenants=self._tenants, keys=self._keys, last_use=LastUse(keys=self._last_use))
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
        for key in [key for key in self._keys.values() if key.tenant == name]:
            self._drop_key(key.id)
        if self._tenants.pop(name, None) is not None:
            workflow.upsert_memo({f"{TENANT_MEMO_PREFIX}{name}": None})

    @workflow.update(name="put_key", description="Creates or replaces a key.")
    def put_key(self, change: PutKeyInput) -> None:
        """The validator rejects with `KEY_EXISTS` (`create_only`), `TENANT_ERASED` and `REGISTRY_FULL`."""
        self._keys[change.key.id] = change.key
        workflow.upsert_memo({f"{KEY_MEMO_PREFIX}{change.key.id}": change.key})

    @put_key.validator
    def _validate_put_key(self, change: PutKeyInput) -> None:
        tenant = self._tenants.get(change.key.tenant)
        if tenant is not None and tenant.is_erasing:
            raise ApplicationError(f"The data of the tenant {tenant.name} are being erased.", type=TENANT_ERASED)
        if change.create_only and change.key.id in self._keys:
            raise ApplicationError(f"The key {change.key.id} exists already.", type=KEY_EXISTS)
        if not change.create_only and change.key.id not in self._keys:
            raise ApplicationError(f"The key {change.key.id} does not exist.", type=KEY_MISSING)
        self._check_size(self._tenants, {**self._keys, change.key.id: change.key})

    @workflow.update(name="remove_key", description="Revokes a key, by its id.")
    def remove_key(self, key_id: str) -> None:
        """Idempotent: a key that does not exist is revoked."""
        self._drop_key(key_id)

    @workflow.signal(name="record_use", description="Records when keys were last used.")
    def record_use(self, used: LastUse) -> None:
        """Keeps the latest time of each key."""
        newer = {key: at for key, at in used.keys.items() if key not in self._last_use or self._last_use[key] < at}
        if newer:
            self._last_use |= newer
            workflow.upsert_memo({LAST_USE_MEMO: LastUse(keys=self._last_use)})

    def _store_tenant(self, tenant: TenantRecord) -> None:
        self._tenants[tenant.name] = tenant
        workflow.upsert_memo({f"{TENANT_MEMO_PREFIX}{tenant.name}": tenant})

    def _drop_key(self, key_id: str) -> None:
        if self._keys.pop(key_id, None) is not None:
            workflow.upsert_memo({f"{KEY_MEMO_PREFIX}{key_id}": None})
        if self._last_use.pop(key_id, None) is not None:
            workflow.upsert_memo({LAST_USE_MEMO: LastUse(keys=self._last_use)})

    def _check_size(self, tenants: Mapping[str, TenantRecord], keys: Mapping[str, KeyRecord]) -> None:
        size = sum(len(one.model_dump_json(exclude_none=True)) for one in (*tenants.values(), *keys.values()))
        if size > MAX_REGISTRY_BYTES:
            raise ApplicationError(
                f"Tenants and keys are limited to {MAX_REGISTRY_BYTES:,} bytes of JSON; with this one they have "
                f"{size:,}. Revoke keys that are not used, or move some to sevenfold.toml.",
                type=REGISTRY_FULL,
            )
