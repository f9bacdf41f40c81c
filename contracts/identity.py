"""Public ids and workflow ids.

A public id is `<prefix>_<26 base32 characters>` (128 bits). A workflow id is `<tenant>:<public id>`, so a request
cannot name another tenant's run and gets a 404.
"""

import base64
import hashlib
import re
import secrets

DEFAULT_TENANT = "default"

DELIVERY_PREFIX = "whk"

# Workflow ids begin with the tenant, or with one of these for workflows that belong to no tenant.
RESERVED_TENANTS = frozenset({"all", "circuit", "erasure", "limits", "schedule", "tenants"})

TENANT_PATTERN = r"^[a-z0-9][a-z0-9-]{0,39}$"

_TENANT = re.compile(TENANT_PATTERN.strip("^$"))
_PUBLIC_ID = re.compile(r"[a-z]{3,4}_[a-z2-7]{26}")
_CLEAR_CHILD = re.compile(r"[^/]+/[0-9]+")


def _base32(digest: bytes) -> str:
    return base64.b32encode(digest).decode().rstrip("=").lower()


def new_id(prefix: str) -> str:
    """Returns a new random public id."""
    return f"{prefix}_{_base32(secrets.token_bytes(16))}"


def derive_id(prefix: str, tenant: str, scope: str, key: str) -> str:
    """Returns the id of an idempotency key, deterministic for tenant and scope (the route)."""
    digest = hashlib.sha256("\x00".join((tenant, scope, key)).encode()).digest()
    return f"{prefix}_{_base32(digest[:16])}"


def is_public_id(text: str) -> bool:
    """Whether the text has the form of a public id. It does not check that the run exists."""
    return _PUBLIC_ID.fullmatch(text) is not None


def build_workflow_id(tenant: str, public_id: str) -> str:
    """Returns the Temporal workflow id of a tenant's run."""
    return f"{tenant}:{public_id}"


def parse_tenant(workflow_id: str) -> str:
    """Returns the tenant of a workflow id."""
    return workflow_id.partition(":")[0]


def is_tenant_name(text: str) -> bool:
    """Whether the text has the form of a tenant's name."""
    return _TENANT.fullmatch(text) is not None


def find_tenant(workflow_id: str) -> str | None:
    """Returns the tenant that a workflow belongs to; None if it belongs to none."""
    tenant, colon, _ = workflow_id.partition(":")
    return tenant if colon and is_tenant_name(tenant) and tenant not in RESERVED_TENANTS else None


def parse_public_id(workflow_id: str) -> str:
    """Returns the public id of a workflow id."""
    return workflow_id.rpartition(":")[2]


def child_workflow_id(run_workflow_id: str, attempt: int, *, uses_codec: bool) -> str:
    """Returns the id of the child workflow that makes an attempt of a workflow agent. `codec` in the id marks
    a child whose payloads are encrypted, because Temporal's codec gets nothing but the id.
    """
    return f"{run_workflow_id}/codec/{attempt}" if uses_codec else f"{run_workflow_id}/{attempt}"


def parse_attempt(workflow_id: str) -> int | None:
    """Returns the number of the attempt that a child workflow makes; None of other workflows."""
    _, slash, attempt = parse_public_id(workflow_id).rpartition("/")
    return int(attempt) if slash and attempt.isdigit() else None


def is_clear_child(workflow_id: str) -> bool:
    """Whether the workflow is the child of a workflow agent whose workers lack our codec keys."""
    return _CLEAR_CHILD.fullmatch(workflow_id) is not None
