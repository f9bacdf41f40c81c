"""Signed texts with an expiry, which need no store: run tokens, and the links of questions."""

import base64
import binascii
import hmac
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from typing import Generic, TypeVar

from pydantic import ValidationError

from sevenfold.adapters.encryption.sealing import Sealer
from sevenfold.contracts.payload import Payload


class TokenFault(Enum):
    """Why a token is refused. `OUTDATED`: another version issued it."""

    INCOMPLETE = "incomplete"
    FORGED = "forged"
    OUTDATED = "outdated"
    EXPIRED = "expired"


class TokenRefusedError(Exception):
    """A token is refused."""

    def __init__(self, fault: TokenFault) -> None:
        super().__init__(fault.value)
        self.fault = fault


class Claims(Payload):
    """What a token permits. `expires_at` is in Unix seconds."""

    expires_at: int


ClaimsT = TypeVar("ClaimsT", bound=Claims)


@dataclass(frozen=True)
class TokenFormat(Generic[ClaimsT]):
    """One kind of token: the MAC of the claims, then the claims as JSON, in base64url. The key is derived for
    `purpose`, so that no kind passes for another.
    """

    claims: type[ClaimsT]
    purpose: str
    mac_bytes: int

    def sign(self, sealer: Sealer, claims: ClaimsT) -> str:
        """Returns the token: letters, digits, `-` and `_`."""
        body = claims.model_dump_json(exclude_none=True).encode()
        return base64.urlsafe_b64encode(self._mac(sealer, body) + body).rstrip(b"=").decode()

    def verify(self, sealer: Sealer, token: str) -> ClaimsT:
        """Returns the claims. Raises TokenRefusedError."""
        try:
            raw = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            raise TokenRefusedError(TokenFault.INCOMPLETE) from None
        mac, body = raw[: self.mac_bytes], raw[self.mac_bytes :]
        if not hmac.compare_digest(mac, self._mac(sealer, body)):
            raise TokenRefusedError(TokenFault.FORGED)
        try:
            claims = self.claims.model_validate_json(body)
        except ValidationError:
            raise TokenRefusedError(TokenFault.OUTDATED) from None
        if claims.expires_at <= datetime.now(UTC).timestamp():
            raise TokenRefusedError(TokenFault.EXPIRED)
        return claims

    def _mac(self, sealer: Sealer, body: bytes) -> bytes:
        return sealer.mac(body, purpose=self.purpose)[: self.mac_bytes]
