"""Public ids and the workflow ids made of them.

A public id is `<prefix>_<26 base32 characters>` (128 bits). A workflow id is `<tenant>:<public id>`, so the
id of another tenant's run cannot even be expressed: it is a 404 by construction.
"""

import base64
import hashlib
import re
import secrets

DEFAULT_TENANT = "default"

DELIVERY_PREFIX = "whk"

_PUBLIC_ID = re.compile(r"[a-z]{3,4}_[a-z2-7]{26}")


def _base32(digest: bytes) -> str:
    return base64.b32encode(digest).decode().rstrip("=").lower()


def new_id(prefix: str) -> str:
    """A fresh random public id."""
    return f"{prefix}_{_base32(secrets.token_bytes(16))}"


def derive_id(prefix: str, tenant: str, scope: str, key: str) -> str:
    """The one id that an idempotency key has on a route of a tenant, in every process and for ever."""
    digest = hashlib.sha256("\x00".join((tenant, scope, key)).encode()).digest()
    return f"{prefix}_{_base32(digest[:16])}"


def is_public_id(text: str) -> bool:
    """Whether the text has the form of a public id; says nothing of whether the run exists."""
    return _PUBLIC_ID.fullmatch(text) is not None


def build_workflow_id(tenant: str, public_id: str) -> str:
    """The Temporal workflow id of a tenant's run."""
    return f"{tenant}:{public_id}"


def parse_tenant(workflow_id: str) -> str:
    """Whose workflow it is."""
    return workflow_id.partition(":")[0]


def parse_public_id(workflow_id: str) -> str:
    """The public part of a workflow id."""
    return workflow_id.rpartition(":")[2]
