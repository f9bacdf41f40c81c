"""One-time links: whoever has one may answer one question, without a key, until it expires."""

import base64
import binascii
import hmac
from dataclasses import dataclass
from datetime import UTC, datetime

from pydantic import ValidationError

from sevenfold.adapters.webhooks.sealing import Sealer
from sevenfold.api.http.authorization import APPROVALS_PREFIX
from sevenfold.contracts.payload import Payload
from sevenfold.contracts.questions import Question

_PURPOSE = "approval-link"
_MAC_BYTES = 20
_MAX_LENGTH = 1_000


class InvalidLinkError(Exception):
    """The link is forged, incomplete or expired. The message is for the person who has it."""


class ApprovalGrant(Payload):
    """What a link permits. `expires_at` is in Unix seconds."""

    tenant: str
    run_id: str
    question_id: str
    expires_at: int


@dataclass(frozen=True)
class ApprovalLinks:
    """Signs links with a key that is derived from SEVENFOLD_SECRET_KEY. Without it there are none."""

    sealer: Sealer | None
    base_url: str

    def build(self, tenant: str, run_id: str, question: Question) -> str | None:
        """Returns the address of the question's page; the same each time."""
        if self.sealer is None:
            return None
        grant = ApprovalGrant(
            tenant=tenant, run_id=run_id, question_id=question.id, expires_at=int(question.expires_at.timestamp())
        )
        body = grant.model_dump_json().encode()
        token = base64.urlsafe_b64encode(self._mac(self.sealer, body) + body).rstrip(b"=").decode()
        return f"{self.base_url}{APPROVALS_PREFIX}/{token}"

    def read(self, token: str) -> ApprovalGrant:
        """Returns what the link permits. Raises InvalidLinkError."""
        if self.sealer is None or len(token) > _MAX_LENGTH:
            raise InvalidLinkError("This link is not valid.")
        try:
            raw = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            raise InvalidLinkError("This link is not complete. Copy all of it.") from None
        mac, body = raw[:_MAC_BYTES], raw[_MAC_BYTES:]
        if not hmac.compare_digest(mac, self._mac(self.sealer, body)):
            raise InvalidLinkError("This link is not complete, was changed, or another gateway made it.")
        try:
            grant = ApprovalGrant.model_validate_json(body)
        except ValidationError:  # of another version
            raise InvalidLinkError("This link is not valid any more.") from None
        if grant.expires_at <= datetime.now(UTC).timestamp():
            raise InvalidLinkError("This link has expired.")
        return grant

    def _mac(self, sealer: Sealer, body: bytes) -> bytes:
        return sealer.mac(body, purpose=_PURPOSE)[:_MAC_BYTES]
