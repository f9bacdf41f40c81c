"""Reads the webhook of a request that starts a run or creates a subscription: a URL with secrets, or an endpoint."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import SecretStr

from sevenfold.adapters.encryption.sealing import Sealer
from sevenfold.adapters.webhooks.endpoint_directory import EndpointDirectory
from sevenfold.adapters.webhooks.sealed_urls import seal_url
from sevenfold.api.http.problems import invalid_field
from sevenfold.api.http.url_policy import UrlPolicy
from sevenfold.contracts.identity import build_workflow_id
from sevenfold.contracts.runs.requests import StartOptions
from sevenfold.contracts.webhooks.delivery import Webhook, webhook_task_queue
from sevenfold.contracts.webhooks.endpoints import WebhookEndpoint


@dataclass(frozen=True)
class CheckedWebhook:
    """A webhook that the gateway may call: its URL, the URL's host, its secret and what seals the secret."""

    url: str
    host: str
    secret: SecretStr
    sealer: Sealer


@dataclass(frozen=True)
class WebhookTerms:
    """How the gateway takes webhooks. `schedule` holds the pause before each attempt, in seconds. Without a sealer it
    takes none, because it could not keep their secrets.
    """

    sealer: Sealer | None
    schedule: Sequence[float]
    url_policy: UrlPolicy
    task_queue: str
    endpoints: EndpointDirectory

    def check(self, url: str | None, secret: SecretStr | None, *others: SecretStr | None) -> CheckedWebhook | None:
        """Returns the webhook, or None if the request has none. Raises 422 if the URL or the secret is missing, if
        the gateway must not call the URL, or if it has no key to seal secrets with.
        """
        if url is None:
            if any((secret, *others)):
                raise invalid_field("/webhookUrl", "is missing, but a secret is given. Add the URL to post to.")
            return None
        if secret is None:
            raise invalid_field("/webhookSecret", "is missing. Receivers verify the signature with it.")
        host = self.url_policy.check(url, "/webhookUrl")
        if self.sealer is None:
            raise invalid_field(
                "/webhookSecret",
                "cannot be stored: the gateway has no key to seal it with. Its operator has to set "
                "SEVENFOLD_SECRET_KEY.",
            )
        return CheckedWebhook(url, host, secret, self.sealer)

    async def build(self, tenant: str, run_id: str, agent: str, options: StartOptions) -> Webhook | None:
        """Returns the run's webhook: the endpoint or URL that the request names, else the default endpoint, if it is
        for this agent. None if there is none. Raises 422 as `check` does, and for an endpoint that cannot be used.
        """
        previous = options.previous_webhook_secret
        if options.webhook_endpoint is not None:
            others = (options.webhook_url, options.webhook_secret, previous)
            return self._build_stored(await self.find_endpoint(tenant, options.webhook_endpoint, agent, *others))
        checked = self.check(options.webhook_url, options.webhook_secret, previous)
        if checked is None:
            default = await self.endpoints.find_default(tenant)
            return self._build_stored(default) if default is not None and default.accepts(agent) else None
        secrets = [secret.get_secret_value() for secret in (checked.secret, previous) if secret is not None]
        owner = build_workflow_id(tenant, run_id)
        return Webhook(
            sealed_url=seal_url(checked.sealer, checked.url, owner=owner),
            host=checked.host,
            sealed_secrets=checked.sealer.seal(json.dumps(secrets), context=owner),
            schedule=list(self.schedule),
            task_queue=webhook_task_queue(self.task_queue),
        )

    async def find_endpoint(self, tenant: str, name: str, agent: str, *others: object) -> WebhookEndpoint:
        """Returns the stored endpoint that a request names. Raises 422 if there is none, if it is not for this agent,
        or if the request has one of `others` too: a URL or its secrets.
        """
        if any(others):
            raise invalid_field(
                "/webhookEndpoint", "excludes webhookUrl and its secrets. Send the endpoint or the URL."
            )
        endpoint = await self.endpoints.find_named(tenant, name)
        if endpoint is None:
            raise invalid_field(
                "/webhookEndpoint", f"there is no endpoint {name}. GET /webhooks/endpoints lists them."
            )
        if not endpoint.accepts(agent):
            agents = ", ".join(endpoint.agents or []) or "none"
            raise invalid_field(
                "/webhookEndpoint", f"the endpoint {name} is not for the agent {agent}, but for: {agents}."
            )
        return endpoint

    def _build_stored(self, endpoint: WebhookEndpoint) -> Webhook:
        return Webhook(
            host=endpoint.host,
            schedule=list(self.schedule),
            task_queue=webhook_task_queue(self.task_queue),
            endpoint_id=endpoint.id,
            events=endpoint.events,
        )
