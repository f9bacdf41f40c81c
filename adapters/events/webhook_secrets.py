"""Seals the webhook secrets and URLs of subscriptions, and reseals them for each reaction."""

import json

from sevenfold.adapters.encryption.sealing import Sealer
from sevenfold.adapters.webhooks.sealed_urls import seal_url, unseal_url
from sevenfold.contracts.events.subscriptions import SubscriptionWebhook, sealing_context
from sevenfold.contracts.identity import build_workflow_id


def seal_webhook(
    sealer: Sealer, tenant: str, subscription: str, *, url: str, host: str, secret: str
) -> SubscriptionWebhook:
    """Seals a subscription's webhook."""
    context = sealing_context(tenant, subscription)
    return SubscriptionWebhook(
        sealed_url=seal_url(sealer, url, owner=context),
        host=host,
        sealed_secrets=sealer.seal(json.dumps([secret]), context=context),
    )


def unseal_webhook_url(sealer: Sealer, tenant: str, subscription: str, webhook: SubscriptionWebhook) -> str:
    """Returns the URL of a subscription's webhook. Raises SealError if no key matches."""
    return unseal_url(sealer, webhook.sealed_url, owner=sealing_context(tenant, subscription))


def reseal_url_for_reaction(
    sealer: Sealer, tenant: str, subscription: str, webhook: SubscriptionWebhook, reaction: str
) -> str:
    """Reseals the URL for one reaction (its public id). Raises SealError if no key matches."""
    url = unseal_webhook_url(sealer, tenant, subscription, webhook)
    return seal_url(sealer, url, owner=build_workflow_id(tenant, reaction))


def reseal_for_reaction(sealer: Sealer, tenant: str, subscription: str, sealed: str, reaction: str) -> str:
    """Reseals the secrets for one reaction (its public id). Raises SealError if no key matches."""
    secrets = sealer.unseal(sealed, context=sealing_context(tenant, subscription))
    return sealer.seal(secrets, context=build_workflow_id(tenant, reaction))
