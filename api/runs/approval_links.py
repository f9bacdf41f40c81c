"""One-time links: the holder of one may answer one question, without a key, until it expires."""

from dataclasses import dataclass

from sevenfold.adapters.access.signed_tokens import Claims, TokenFault, TokenFormat, TokenRefusedError
from sevenfold.adapters.encryption.sealing import Sealer
from sevenfold.api.http.authorization import APPROVALS_PREFIX
from sevenfold.contracts.agents.questions import Question

_MAX_LENGTH = 1_000


class InvalidLinkError(Exception):
    """The link is forged, incomplete or expired. The message is for the person who has it."""


class ApprovalGrant(Claims):
    """What a link permits."""

    tenant: str
    run_id: str
    question_id: str


_FORMAT = TokenFormat(ApprovalGrant, "approval-link", mac_bytes=20)
_REFUSALS = {
    TokenFault.INCOMPLETE: "This link is not complete. Copy all of it.",
    TokenFault.FORGED: "This link is not complete, was changed, or another gateway made it.",
    TokenFault.OUTDATED: "This link is not valid any more.",
    TokenFault.EXPIRED: "This link has expired.",
}


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
        return f"{self.base_url}{APPROVALS_PREFIX}/{_FORMAT.sign(self.sealer, grant)}"

    def read(self, token: str) -> ApprovalGrant:
        """Returns what the link permits. Raises InvalidLinkError."""
        if self.sealer is None or len(token) > _MAX_LENGTH:
            raise InvalidLinkError("This link is not valid.")
        try:
            return _FORMAT.verify(self.sealer, token)
        except TokenRefusedError as refused:
            raise InvalidLinkError(_REFUSALS[refused.fault]) from None
