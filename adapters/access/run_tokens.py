"""Run tokens: signed, short-lived, for one run. Browsers pass them as `?token=`, because `EventSource` and
`WebSocket` send no headers.
"""

from sevenfold.adapters.access.signed_tokens import Claims, TokenFault, TokenFormat, TokenRefusedError
from sevenfold.adapters.encryption.sealing import Sealer
from sevenfold.contracts.access.principals import RunScope

_PREFIX = "sfr_"
_MAX_LENGTH = 1_000


class InvalidRunTokenError(Exception):
    """The token is malformed, forged or expired. The message is for the client and holds no part of the token."""


class RunToken(Claims):
    """What a token permits. `key_id`: the key that issued it and with which it ends; None in a gateway without keys.
    `agent`: the agent that it may start the run with.
    """

    run_id: str
    tenant: str
    key_id: str | None = None
    scopes: list[RunScope]
    agent: str | None = None


_FORMAT = TokenFormat(RunToken, "run-token", mac_bytes=16)
_REFUSALS = {
    TokenFault.INCOMPLETE: "The run token is not complete.",
    TokenFault.FORGED: "The run token was changed, or another gateway issued it.",
    TokenFault.OUTDATED: "The run token is not valid any more.",
    TokenFault.EXPIRED: "The run token has expired. Issue a new one.",
}


def is_run_token(credential: str) -> bool:
    """Whether it has the form of a run token."""
    return credential.startswith(_PREFIX)


class RunTokens:
    """Signs and verifies tokens with a key that is derived from SEVENFOLD_SECRET_KEY."""

    def __init__(self, sealer: Sealer) -> None:
        self._sealer = sealer

    def sign(self, token: RunToken) -> str:
        """Returns the token's text: letters, digits, `-` and `_`."""
        return _PREFIX + _FORMAT.sign(self._sealer, token)

    def verify(self, text: str) -> RunToken:
        """Returns what the token permits. Raises InvalidRunTokenError."""
        encoded = text.removeprefix(_PREFIX)
        if encoded == text or len(text) > _MAX_LENGTH:
            raise InvalidRunTokenError("This is not a run token.")
        try:
            return _FORMAT.verify(self._sealer, encoded)
        except TokenRefusedError as refused:
            raise InvalidRunTokenError(_REFUSALS[refused.fault]) from None
