"""Builds what authenticates the requests to a process."""

from sevenfold.adapters.access.authenticator import Authenticator
from sevenfold.adapters.access.issuer_keys import issuer_client
from sevenfold.adapters.access.last_use import LastUseRecorder
from sevenfold.adapters.access.oidc import OidcVerifier
from sevenfold.adapters.access.run_tokens import RunTokens
from sevenfold.runtime.services import Services


def build_authenticator(services: Services, tokens: RunTokens | None) -> Authenticator:
    """Builds the authenticator; it is to be closed by `aclose`. `tokens`: None for a process without runs."""
    oidc = services.config.auth.oidc
    return Authenticator(
        services.access,
        LastUseRecorder(services.access.registry),
        tokens,
        OidcVerifier(oidc, issuer_client()) if oidc else None,
        requires_credentials=services.requires_credentials,
    )
