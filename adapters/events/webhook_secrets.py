"""The secrets of subscriptions' webhooks, sealed for as long as they are kept, and anew for every reaction."""

import json

from adapters.sealing import Sealer
from contracts.identity import workflow_id
from contracts.subscriptions import sealed_for


def sealed_secrets(sealer: Sealer, tenant: str, subscription: str, secret: str) -> str:
    """A subscription's webhook secret as it is kept."""
    return sealer.seal(json.dumps([secret]), context=sealed_for(tenant, subscription))


def sealed_anew(sealer: Sealer, tenant: str, subscription: str, sealed: str, reaction: str) -> str:
    """The same for one reaction, of which the public id is given. Raises SealError where no key fits."""
    secrets = sealer.unseal(sealed, context=sealed_for(tenant, subscription))
    return sealer.seal(secrets, context=workflow_id(tenant, reaction))
