"""Run tokens: signed, short-lived, for one run. Browsers pass them as `?token=`, because `EventSource` and
`WebSocket` send no headers.
"""

import base64
import binascii
import hmac
from datetime import UTC, datetime

from pydantic import ValidationError

from sevenfold.adapters.webhooks.sealing import Sealer
from sevenfold.contracts.access import RunScope
from sevenfold.contracts.payload import Payload

_PREFIX = "sfr_"
_MAC_BYTES = 16
_MAX_LENGTH = 1_000


class InvalidRunTokenError(Exception):
    """The token is malformed, forged or expired. The message is for the client and holds no part of the token."""


class RunToken(Payload):
    """What a token permits. `key_id`: the key that issued it and with which it ends; None in a gateway without keys.
    `agent`: the agent that it may start the run with. `expires_at` is in Unix seconds.
    """

    run_id: str
    tenant: str
    key_id: str | None = None
    scopes: list[RunScope]
    agent: str | None = None
    expires_at: int


class RunTokens:
    """Signs and verifies tokens with a key that is derived from SEVENFOLD_SECRET_KEY."""

    def __init__(self, sealer: Sealer) -> None:
        self._sealer = sealer

    def sign(self, token: RunToken) -> str:
        """Returns the token's text: letters, digits, `-` and `_`."""
        body = token.model_dump_json(exclude_none=True).encode()
        return _PREFIX + base64.urlsafe_b64encode(self._mac(body) + body).rstrip(b"=").decode()

    def verify(self, text: str) -> RunToken:
        """Returns what the token permits. Raises InvalidRunTokenError."""
        encoded = text.removeprefix(_PREFIX)
        if encoded == text or len(text) > _MAX_LENGTH:
            raise InvalidRunTokenError("This is not a run token.")
        try:
            raw = base64.b64decode(encoded + "=" * (-len(encoded) % 4), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            raise InvalidRunTokenError("The run token is not complete.") from None
        mac, body = raw[:_MAC_BYTES], raw[_MAC_BYTES:]
        if not hmac.compare_digest(mac, self._mac(body)):
            raise InvalidRunTokenError("The run token was changed, or another gateway issued it.")
        try:
            token = RunToken.model_validate_json(body)
        except ValidationError:  # of another version
            raise InvalidRunTokenError("The run token is not valid any more.") from None
        if token.expires_at <= datetime.now(UTC).timestamp():
            raise InvalidRunTokenError("The run token has expired. Issue a new one.")
        return token

    def _mac(self, body: bytes) -> bytes:
        return self._sealer.mac(body, purpose="run-token")[:_MAC_BYTES]
