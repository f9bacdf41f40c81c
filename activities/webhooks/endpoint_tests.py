"""The activity that tests a stored endpoint."""

import json
import time

from temporalio import activity

from sevenfold.activities.heartbeats import heartbeat_periodically
from sevenfold.activities.webhooks.attempts import Poster, failed_before_post
from sevenfold.activities.webhooks.targets import DeliveryTargets
from sevenfold.adapters.encryption.sealing import SealError
from sevenfold.adapters.webhooks.endpoint_directory import EndpointDirectory
from sevenfold.adapters.webhooks.signatures import sign_headers
from sevenfold.contracts.webhooks.delivery import AttemptOutcome
from sevenfold.contracts.webhooks.endpoints import EndpointTestInput


class EndpointTests:
    """Posts samples, also to disabled endpoints."""

    def __init__(self, poster: Poster, targets: DeliveryTargets, endpoints: EndpointDirectory) -> None:
        self._poster = poster
        self._targets = targets
        self._endpoints = endpoints

    @activity.defn(name="test_endpoint")
    async def test_endpoint(self, test: EndpointTestInput) -> AttemptOutcome:
        """Posts a signed sample once. A receiver's response is an outcome, never an exception."""
        async with heartbeat_periodically():
            endpoint = (await self._endpoints.load(test.tenant)).get(test.id)
            if endpoint is None:
                return failed_before_post("The endpoint was deleted.")
            try:
                target = self._targets.for_endpoint(test.tenant, endpoint)
            except SealError as error:
                return failed_before_post(str(error))
            sample = {"event": "test", "endpoint": endpoint.name, "status": "test"}
            body = json.dumps(sample, separators=(",", ":")).encode()
            headers = sign_headers(target.secrets, test.webhook_id, int(time.time()), body)
            return await self._poster.post(target.url, {**headers, "webhook-event": "test"}, body)
