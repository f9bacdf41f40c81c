"""Seals the webhook secrets of subscriptions, and reseals them for each reaction."""

import json

from sevenfold.adapters.webhooks.sealing import Sealer
from sevenfold.contracts.identity import build_workflow_id
from sevenfold.contracts.subscriptions import sealing_context


def seal_secret(sealer: Sealer, tenant: str, subscription: str, secret: str) -> str:
    """Seals a subscription's webhook secret."""
    return sealer.seal(json.dumps([secret]), context=sealing_context(tenant, subscription))


def reseal_for_reaction(sealer: Sealer, tenant: str, subscription: str, sealed: str, reaction: str) -> str:
    """Reseals the secrets for one reaction (its public id). Raises SealError if no key matches."""
    secrets = sealer.unseal(sealed, context=sealing_context(tenant, subscription))
    return sealer.seal(secrets, context=build_workflow_id(tenant, reaction))
