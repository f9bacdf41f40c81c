"""`webhookUrl` and its secrets, as every start takes them."""

import json

from sevenfold.adapters.outbound.addresses import UnsafeUrlError
from sevenfold.adapters.outbound.urls import check_url
from sevenfold.adapters.webhooks.sealing import Sealer
from sevenfold.api.dependencies import Gateway
from sevenfold.api.http.problems import invalid_field
from sevenfold.contracts.identity import build_workflow_id
from sevenfold.contracts.requests import StartOptions
from sevenfold.contracts.webhooks import Webhook, webhook_task_queue


def build_webhook(gateway: Gateway, tenant: str, run_id: str, body: StartOptions) -> Webhook | None:
    """The run's webhook with its secrets sealed, if it has one. Raises the problem of one that cannot be."""
    secrets = [body.webhook_secret, body.previous_webhook_secret]
    if body.webhook_url is None:
        if any(secrets):
            raise invalid_field("/webhookUrl", "is missing: there is a secret, and nothing to sign")
        return None
    if body.webhook_secret is None:
        raise invalid_field("/webhookSecret", "is missing: receivers verify by it who posts")
    host, sealer = check_webhook(gateway, body.webhook_url)
    secret_list = json.dumps([secret.get_secret_value() for secret in secrets if secret is not None])
    return Webhook(
        url=body.webhook_url,
        host=host,
        sealed_secrets=sealer.seal(secret_list, context=build_workflow_id(tenant, run_id)),
        schedule=list(gateway.webhooks.schedule),
        task_queue=webhook_task_queue(gateway.task_queue),
    )


def check_webhook(gateway: Gateway, url: str) -> tuple[str, Sealer]:
    """The URL's host, and what seals the secret. Raises the problem of a URL that may not be, or of a missing key."""
    webhook_settings = gateway.webhooks
    try:
        host = check_url(url, allow_loopback=webhook_settings.allow_loopback).host
    except UnsafeUrlError as error:
        raise invalid_field("/webhookUrl", str(error)) from None
    if webhook_settings.sealer is None:
        raise invalid_field(
            "/webhookSecret",
            "cannot be kept: this gateway has no key to seal it with. Its operator has to set SEVENFOLD_SECRET_KEY.",
        )
    return host, webhook_settings.sealer
