"""The addresses at which `http` agents record their steps."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from sevenfold.adapters.access.run_tokens import RunToken, RunTokens
from sevenfold.adapters.encryption.sealing import Sealer
from sevenfold.contracts.access.principals import RunScope

# After the deadline a late step is refused by the run, not by the token.
_GRACE = timedelta(minutes=1)


@dataclass(frozen=True)
class StepAddresses:
    """Builds addresses under that of the API. Without a sealer there are none: nothing could sign their tokens."""

    sealer: Sealer | None
    base_url: str

    def build(self, tenant: str, run_id: str, deadline: datetime) -> str | None:
        """Returns the address of a run's steps, with a token that permits nothing else, until the deadline."""
        if self.sealer is None:
            return None
        token = RunToken(
            run_id=run_id, tenant=tenant, scopes=[RunScope.STEP], expires_at=int((deadline + _GRACE).timestamp())
        )
        return f"{self.base_url}/api/agent/runs/{run_id}/steps?token={RunTokens(self.sealer).sign(token)}"
