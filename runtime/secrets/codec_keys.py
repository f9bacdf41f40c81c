"""The keys that encrypt what Temporal and Redis store, from SEVENFOLD_CODEC_KEYS."""

import asyncio
import base64
import re
from contextlib import suppress

import structlog
from temporalio.client import Client, WorkflowExecution
from temporalio.service import RPCError

from sevenfold.adapters.encryption.key_ring import KEY_BYTES, DecryptionError, KeyRing
from sevenfold.adapters.temporal.encoded import check_memos, memo_key_ids
from sevenfold.contracts import workflow_types
from sevenfold.runtime.config.settings import Settings
from sevenfold.runtime.startup import StartupError

log = structlog.get_logger(__name__)

_VARIABLE = "SEVENFOLD_CODEC_KEYS"

# Enough to meet every key that open workflows use: the newest and the oldest were started under different keys.
_MAX_CHECKED = 2_000
_CHECK_SECONDS = 10.0

_ENDLESS = (
    workflow_types.TENANT_REGISTRY,
    workflow_types.SUBSCRIPTION_REGISTRY,
    workflow_types.WEBHOOK_ENDPOINTS,
    workflow_types.USAGE_LEDGER,
)
_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_FORM = (
    f"Write it as id:key, where key is the base64 of {KEY_BYTES} bytes (create one with: openssl rand -base64 32). "
    "Separate several by commas: the first encrypts, all decrypt."
)


def load_key_ring(settings: Settings) -> KeyRing:
    """Returns the key ring; an empty one if the variable is unset or empty. Raises StartupError, which never shows a
    key.
    """
    text = settings.codec_keys.get_secret_value() if settings.codec_keys else ""
    if not text.strip():  # A compose file passes an unset variable as an empty string.
        return KeyRing({})
    keys: dict[str, bytes] = {}
    parts = text.split(",")
    for number, part in enumerate(parts, start=1):
        which = f"{_VARIABLE}: key {number} of {len(parts)}"
        key_id, colon, encoded = part.strip().partition(":")
        # The part before the colon may be a key whose id was forgotten, so it is not shown.
        if not colon or not _ID.fullmatch(key_id):
            raise StartupError(f"{which} has no id of up to 64 letters, digits and . _ - before a colon. {_FORM}")
        key = _decode_key(encoded)
        if key is None:
            raise StartupError(f"{which} is not the base64 of {KEY_BYTES} bytes after the colon. {_FORM}")
        if key_id in keys:
            raise StartupError(f"{which} has the id of an earlier one. Give every key an id of its own. {_FORM}")
        keys[key_id] = key
    return KeyRing(keys)


async def check_open_workflows(client: Client, keys: KeyRing, task_queue: str) -> None:
    """Raises StartupError if an open workflow of this gateway was encrypted with a key that this process lacks.

    The process would fail the tasks of that workflow. So it does not start, and the workflow waits for one that has
    the key. Registries that another key encrypted are renewed, because they have no end.
    """
    is_open = f"ExecutionStatus = 'Running' AND TaskQueue STARTS_WITH '{task_queue}'"
    endless = ", ".join(f"'{name}'" for name in _ENDLESS)
    try:
        async with asyncio.timeout(_CHECK_SECONDS):
            async for execution in client.list_workflows(f"{is_open} AND WorkflowType IN ({endless})"):
                await _check_workflow(client, execution)
                if keys and memo_key_ids(execution) - {keys.first_id}:
                    await client.get_workflow_handle(execution.id).signal("renew")
            others = f"{is_open} AND WorkflowType NOT IN ({endless})"
            async for execution in client.list_workflows(others, limit=_MAX_CHECKED):
                await _check_workflow(client, execution)
    except (RPCError, TimeoutError) as error:
        log.warning("open workflows were not checked for their codec keys", error=str(error)[:200])


async def _check_workflow(client: Client, execution: WorkflowExecution) -> None:
    try:
        await check_memos(client, execution)
    except DecryptionError as error:
        raise StartupError(
            f"The open workflow {execution.id} cannot be decrypted. {error} Only if the key is lost for good: "
            "terminate the workflows that need it in Temporal, and start again."
        ) from None


def _decode_key(encoded: str) -> bytes | None:
    with suppress(ValueError):
        key = base64.b64decode(encoded, validate=True)
        if len(key) == KEY_BYTES:
            return key
    return None
