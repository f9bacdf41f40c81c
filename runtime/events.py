"""Builds the event ingest from settings and configuration."""

import os
from collections import defaultdict

from temporalio.client import Client

from sevenfold.adapters.access.directory import AccessDirectory
from sevenfold.adapters.encryption.sealing import Sealer
from sevenfold.adapters.events.ingest import EventIngest
from sevenfold.adapters.events.subscription_cache import SubscriptionCache
from sevenfold.adapters.events.webhook_secrets import seal_webhook
from sevenfold.adapters.outbound.addresses import UnsafeUrlError
from sevenfold.adapters.outbound.urls import check_url
from sevenfold.contracts.config.schema import SevenfoldConfig
from sevenfold.contracts.events.subscriptions import (
    Subscription,
    SubscriptionConfig,
    SubscriptionWebhook,
    build_subscription,
)
from sevenfold.runtime.config.settings import Settings
from sevenfold.runtime.quotas import ProcessQuotas
from sevenfold.runtime.startup import StartupError


def build_event_ingest(
    client: Client,
    settings: Settings,
    config: SevenfoldConfig,
    access: AccessDirectory,
    quotas: ProcessQuotas,
    sealer: Sealer | None,
) -> EventIngest:
    """Builds the ingest; one per process. Raises StartupError for a subscription whose webhook is invalid."""
    configured: defaultdict[str, list[Subscription]] = defaultdict(list)
    for one in config.subscriptions:
        configured[one.tenant].append(_configured_subscription(settings, config, one, sealer))
    subscriptions = SubscriptionCache(client, access, configured)
    return EventIngest(client, settings.task_queue, subscriptions, access, quotas.rates, quotas.stored_bytes)


def _configured_subscription(
    settings: Settings, config: SevenfoldConfig, entry: SubscriptionConfig, sealer: Sealer | None
) -> Subscription:
    return build_subscription(entry, entry.name, config.default_agent, _build_webhook(settings, entry, sealer))


def _build_webhook(
    settings: Settings, entry: SubscriptionConfig, sealer: Sealer | None
) -> SubscriptionWebhook | None:
    where = f"{settings.config}: subscription {entry.name}"
    if entry.webhook_url is None:
        if entry.webhook_secret_env is not None:
            raise StartupError(f"{where}: webhook_secret_env is set but webhook_url is missing.")
        return None
    secret = os.environ.get(entry.webhook_secret_env or "")
    if not secret:
        named = (
            f"{entry.webhook_secret_env} is not set" if entry.webhook_secret_env else "webhook_secret_env is missing"
        )
        raise StartupError(f"{where}: {named}. It names the variable with the secret that signs the webhooks.")
    try:
        host = check_url(entry.webhook_url, allow_loopback=settings.allow_loopback_urls).host
    except UnsafeUrlError as error:
        raise StartupError(f"{where}: webhook_url {error}") from None
    if sealer is None:
        raise StartupError(f"{where}: a webhook needs SEVENFOLD_SECRET_KEY, which seals its secret.")
    return seal_webhook(sealer, entry.tenant, entry.name, url=entry.webhook_url, host=host, secret=secret)
