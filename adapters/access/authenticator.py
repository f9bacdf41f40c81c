"""Finds out who sent a request, by the credential in it."""

import hmac
from datetime import UTC, datetime

from sevenfold.adapters.access.directory import AccessDirectory
from sevenfold.adapters.access.last_use import LastUseRecorder
from sevenfold.adapters.access.oidc import OIDC_PREFIX, InvalidTokenError, IssuerUnavailableError, OidcVerifier
from sevenfold.adapters.access.run_tokens import InvalidRunTokenError, RunTokens, is_run_token
from sevenfold.adapters.access.snapshot import AccessSnapshot
from sevenfold.contracts.access.api_keys import parse_key
from sevenfold.contracts.access.principals import SCOPE_OF_RUN_SCOPE, Principal, RunGrant, Scope
from sevenfold.contracts.access.tenant_registry import KeyRecord

# Compared with where there is no key, so that a guess costs as much as a hit.
_NO_HASH = "sha256:" + "0" * 64


class InvalidCredentialError(Exception):
    """The credential is wrong. The message is for the client and holds no part of the credential."""


class AccessUnavailableError(Exception):
    """Whether the credential is right cannot be found out now."""


class Authenticator:
    """Verifies keys, access tokens and run tokens.

    `requires_credentials`: False for a gateway without keys, where everybody is `ANONYMOUS`. It does not change while
    the process runs, so that revoking the last key does not open the gateway.
    """

    def __init__(
        self,
        directory: AccessDirectory,
        last_use: LastUseRecorder,
        tokens: RunTokens | None,
        oidc: OidcVerifier | None,
        *,
        requires_credentials: bool,
    ) -> None:
        self._directory = directory
        self._last_use = last_use
        self._tokens = tokens
        self._oidc = oidc
        self.requires_credentials = requires_credentials
        self._principals: dict[str, tuple[KeyRecord, Principal]] = {}

    async def authenticate(self, credential: str) -> Principal:
        """Returns who sent a key or an access token. Raises InvalidCredentialError and AccessUnavailableError."""
        if is_run_token(credential):
            raise InvalidCredentialError("This is a run token: append it to the run's address as ?token=….")
        if not credential.startswith("sf_") and self._oidc is not None:
            return await self._verify_token(self._oidc, credential)
        presented = parse_key(credential)
        if presented is None:
            raise InvalidCredentialError("The API key is incomplete or mistyped.")
        snapshot = await self._directory.load()
        key = snapshot.find_key(presented.key_id, with_inactive=True)
        matches = hmac.compare_digest(_NO_HASH if key is None else key.hash, presented.hash)
        if key is None and not snapshot.is_current:
            raise AccessUnavailableError
        if key is None or not matches:
            raise InvalidCredentialError("The API key is unknown or was revoked.")
        if snapshot.is_erasing(key.tenant):
            raise InvalidCredentialError("The data of the API key's tenant are being erased.")
        if not snapshot.is_active(key.tenant):
            raise InvalidCredentialError("The API key's tenant does not exist any more.")
        if _is_over(key.expires_at):
            raise InvalidCredentialError("The API key has expired.")
        self._last_use.record(key.id)
        return self._principal(key)

    async def authenticate_run_token(self, text: str) -> Principal:
        """Returns who sent a run token. Raises InvalidCredentialError and AccessUnavailableError."""
        if self._tokens is None:
            raise InvalidCredentialError("This gateway issues no run tokens.")
        try:
            token = self._tokens.verify(text)
        except InvalidRunTokenError as error:
            raise InvalidCredentialError(str(error)) from None
        principal = Principal(
            token.tenant,
            frozenset(),
            key_id=token.key_id,
            expires_at=datetime.fromtimestamp(token.expires_at, UTC),
            run=RunGrant(token.run_id, frozenset(token.scopes), token.agent),
        )
        await self._check_not_revoked(principal, "The key that issued the run token was revoked or has expired.")
        return principal

    async def is_valid(self, principal: Principal) -> bool:
        """Whether a principal that was authenticated earlier still would be. True while that cannot be found out."""
        if _is_over(principal.expires_at):
            return False
        snapshot = await self._directory.load()
        return not self._is_revoked(principal, snapshot) or not snapshot.is_current

    async def _check_not_revoked(self, principal: Principal, detail: str) -> None:
        snapshot = await self._directory.load()
        if self._is_revoked(principal, snapshot):
            if not snapshot.is_current:
                raise AccessUnavailableError
            raise InvalidCredentialError(detail)

    def _is_revoked(self, principal: Principal, snapshot: AccessSnapshot) -> bool:
        if principal.key_id is None:
            return self.requires_credentials
        if not snapshot.is_active(principal.tenant):
            return True
        if principal.key_id.startswith(OIDC_PREFIX):
            return False
        key = snapshot.find_key(principal.key_id)
        if key is None or _is_over(key.expires_at):
            return True
        return principal.run is not None and not _may_issue(key, principal.tenant, principal.run)

    async def aclose(self) -> None:
        """Sends the last uses of keys, and stops what runs in the background."""
        await self._last_use.aclose()
        if self._oidc is not None:
            await self._oidc.aclose()

    async def _verify_token(self, oidc: OidcVerifier, token: str) -> Principal:
        try:
            principal = await oidc.verify(token)
        except InvalidTokenError as error:
            raise InvalidCredentialError(str(error)) from None
        except IssuerUnavailableError:
            raise AccessUnavailableError from None
        await self._check_not_revoked(principal, "The token's tenant does not exist in this gateway.")
        return principal

    def _principal(self, key: KeyRecord) -> Principal:
        known = self._principals.get(key.id)
        if known is not None and known[0] is key:
            return known[1]
        scopes = frozenset(key.scopes)
        principal = Principal(
            key.tenant, scopes, key_id=key.id, expires_at=key.expires_at, lists_all=Scope.ADMIN in scopes
        )
        self._principals[key.id] = (key, principal)
        return principal


def _may_issue(key: KeyRecord, tenant: str, run: RunGrant) -> bool:
    """Whether the key, as it is now, could issue a run token of this tenant with these scopes."""
    if Scope.ADMIN in key.scopes:
        return True
    return key.tenant == tenant and all(SCOPE_OF_RUN_SCOPE[scope] in key.scopes for scope in run.scopes)


def _is_over(expires_at: datetime | None) -> bool:
    return expires_at is not None and expires_at <= datetime.now(UTC)
