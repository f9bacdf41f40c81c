"""How events are taken in, out of settings and configuration."""

import os

from temporalio.client import Client

from adapters.events.intake import EventIntake
from adapters.events.subscription_book import SubscriptionBook
from adapters.events.webhook_secrets import sealed_secrets
from adapters.outbound.addresses import UnsafeUrlError
from adapters.outbound.urls import check_url
from contracts.config import SevenfoldConfig
from contracts.identity import DEFAULT_TENANT
from contracts.subscriptions import Subscription, SubscriptionConfig, SubscriptionWebhook, subscription_of
from runtime.secret_key import load_sealer
from runtime.settings import Settings
from runtime.startup import StartupError


def event_intake(client: Client, settings: Settings, config: SevenfoldConfig) -> EventIntake:
    """One for each process. Raises StartupError for a subscription whose webhook cannot be."""
    configured = [_configured(settings, config, one) for one in config.subscriptions]
    return EventIntake(client, settings.task_queue, SubscriptionBook(client, configured))


def _configured(settings: Settings, config: SevenfoldConfig, terms: SubscriptionConfig) -> Subscription:
    return subscription_of(terms, terms.name, config.default_agent, _webhook(settings, terms))


def _webhook(settings: Settings, terms: SubscriptionConfig) -> SubscriptionWebhook | None:
    where = f"{settings.config}: subscription {terms.name}"
    if terms.webhook_url is None:
        if terms.webhook_secret_env is not None:
            raise StartupError(f"{where}: webhook_secret_env is there, and webhook_url is missing.")
        return None
    secret = os.environ.get(terms.webhook_secret_env or "")
    if not secret:
        named = (
            f"{terms.webhook_secret_env} is not set" if terms.webhook_secret_env else "webhook_secret_env is missing"
        )
        raise StartupError(f"{where}: {named}. Receivers verify by the secret in that variable who posts.")
    try:
        host = check_url(terms.webhook_url, allow_loopback=settings.allow_loopback_urls).host
    except UnsafeUrlError as error:
        raise StartupError(f"{where}: webhook_url {error}") from None
    sealer = load_sealer(settings)
    if sealer is None:
        raise StartupError(f"{where}: it has a webhook, whose secret cannot be kept without SEVENFOLD_SECRET_KEY.")
    sealed = sealed_secrets(sealer, DEFAULT_TENANT, terms.name, secret)
    return SubscriptionWebhook(url=terms.webhook_url, host=host, sealed_secrets=sealed)
