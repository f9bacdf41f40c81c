"""Tenants with keys, as tests configure and use them."""

from dataclasses import dataclass, field

import httpx

from sevenfold.contracts.access.api_keys import NewKey, generate_key
from sevenfold.contracts.access.principals import Scope
from tests.support.stack import Stack, http_client

ALL_BUT_ADMIN = tuple(sorted(scope for scope in Scope if scope is not Scope.ADMIN))


@dataclass(frozen=True)
class TenantKey:
    """A key of a tenant, and the lines of `sevenfold.toml` that configure it."""

    tenant: str
    scopes: tuple[str, ...] = ALL_BUT_ADMIN
    more: str = ""
    new: NewKey = field(default_factory=generate_key)

    @property
    def text(self) -> str:
        return self.new.text

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.text}"}

    @property
    def config(self) -> str:
        scopes = ", ".join(f'"{scope}"' for scope in self.scopes)
        return (
            f"\n[[tenants.{self.tenant}.keys]]\n"
            f'id = "{self.new.key_id}"\nhash = "{self.new.hash}"\nscopes = [{scopes}]\n{self.more}\n'
        )


def key_config(*keys: TenantKey) -> str:
    """The configuration of several keys."""
    return "".join(key.config for key in keys)


def client_of(stack: Stack, key: TenantKey | None = None) -> httpx.AsyncClient:
    """A client that sends the key; without one, none."""
    client = http_client(stack.settings.port)
    if key is not None:
        client.headers.update(key.headers)
    return client
