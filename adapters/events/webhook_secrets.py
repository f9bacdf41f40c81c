"""The secrets of subscriptions' webhooks, sealed for as long as they are kept, and anew for every reaction."""

import json

from sevenfold.adapters.webhooks.sealing import Sealer
from sevenfold.contracts.identity import build_workflow_id
from sevenfold.contracts.subscriptions import sealing_context


def seal_secret(sealer: Sealer, tenant: str, subscription: str, secret: str) -> str:
    """A subscription's webhook secret as it is kept."""
    return sealer.seal(json.dumps([secret]), context=sealing_context(tenant, subscription))


def reseal_for_reaction(sealer: Sealer, tenant: str, subscription: str, sealed: str, reaction: str) -> str:
    """The same for one reaction, of which the public id is given. Raises SealError where no key fits."""
    secrets = sealer.unseal(sealed, context=sealing_context(tenant, subscription))
    return sealer.seal(secrets, context=build_workflow_id(tenant, reaction))
