"""Authenticates and authorizes requests before anything reads their body."""

import asyncio
import re
from dataclasses import replace

import structlog
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sevenfold.adapters.access.authenticator import AccessUnavailableError, Authenticator, InvalidCredentialError
from sevenfold.adapters.access.directory import AccessDirectory
from sevenfold.adapters.quotas.exceeded import QuotaExceededError
from sevenfold.adapters.quotas.rates import RateQuotas
from sevenfold.api.dependencies import API_PREFIX, current_principal
from sevenfold.api.http.authorization import CHALLENGE, SNS_PATH, UNVERIFIED, authorize, is_open
from sevenfold.api.http.open_responses import (
    OpenResponse,
    OpenResponses,
    current_response,
    end_response,
    is_open_ended,
)
from sevenfold.api.http.problem_handlers import render, to_problem
from sevenfold.api.http.problems import ProblemError, ProblemType, invalid_field, not_found
from sevenfold.api.http.query_parameters import RUN_TOKENS, take_parameter
from sevenfold.api.http.request_id import request_id
from sevenfold.contracts.access.principals import ANONYMOUS, Principal

_BEARER = re.compile(r"bearer +(\S+)", re.IGNORECASE)
_ADMIN = f"{API_PREFIX}/admin/"
_SEND_ONE = "Send an API key or an access token: Authorization: Bearer …."
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class AuthenticationMiddleware:
    """ASGI middleware for HTTP and WebSocket. Sets `current_principal`. Answers 401, 403 and 429 as problems, without
    reading the body, and closes the connection after them.
    """

    def __init__(
        self, app: ASGIApp, authenticator: Authenticator, directory: AccessDirectory, rates: RateQuotas
    ) -> None:
        self._app = app
        self._rates = rates
        self._authenticator = authenticator
        self._directory = directory
        self._open_responses = OpenResponses(authenticator)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        try:
            principal = await self._check(scope)
        except (ProblemError, QuotaExceededError) as error:
            response = render(to_problem(error), request_id())
            response.headers["Connection"] = "close"  # The body, if there is one, is not read.
            await response(scope, receive, send)
            return
        current_principal.set(principal)
        structlog.contextvars.bind_contextvars(tenant=principal.tenant)
        if principal.key_id is None and principal.run is None:
            await self._app(scope, receive, send)
        else:
            await self._serve_while_valid(principal, scope, receive, send)

    async def _serve_while_valid(self, principal: Principal, scope: Scope, receive: Receive, send: Send) -> None:
        """Runs the app. A stream or WebSocket ends when the credential is not valid any more."""
        response = OpenResponse(asyncio.timeout(None))
        current_response.set(response)
        media_type = ""

        async def send_watched(message: Message) -> None:
            nonlocal media_type
            if is_open_ended(message):
                media_type = Headers(raw=message.get("headers", [])).get("content-type", "")
                self._open_responses.add(response, principal)
            await send(message)

        try:
            async with response.limit:
                await self._app(scope, receive, send_watched)
        except TimeoutError:
            if not response.has_ended:
                raise
            await end_response(scope, send, media_type)
        finally:
            self._open_responses.discard(response, principal)

    async def _check(self, scope: Scope) -> Principal:
        """Returns who sent the request, if they may send it. Raises 401, 403, 503 and QuotaExceededError."""
        path, method = scope["path"], scope.get("method", "GET")
        if is_open(path):
            return ANONYMOUS
        if path == SNS_PATH and method == "POST":
            return UNVERIFIED
        if _CONTROL.search(path):  # The router would take a line break at the end for no character.
            raise not_found("This address")
        principal = await self._authenticate(scope)
        if principal is ANONYMOUS:
            if path.startswith(_ADMIN):
                raise _without_keys()
        else:
            authorize(principal, method, path)
        await self._rates.admit_request(self._directory.latest.quota_owners(principal.tenant, principal.api_key_id))
        if principal.is_admin and not path.startswith(_ADMIN):
            return await self._name_tenant(principal, take_parameter(scope, "tenant"))
        return principal

    async def _authenticate(self, scope: Scope) -> Principal:
        required = self._authenticator.requires_credentials
        # Without keys, Authorization is for a proxy in front.
        credentials, tokens = _find_credentials(scope) if required else [], scope.get(RUN_TOKENS, [])
        if len(credentials) + len(tokens) > 1:
            raise _unauthorized(
                "Send one credential: Authorization, X-API-Key or ?token=, once.", has_credential=True
            )
        try:
            if tokens:
                return await self._authenticator.authenticate_run_token(tokens[0])
            if credentials == [""]:
                raise _unauthorized(
                    "Authorization has another scheme. Send: Authorization: Bearer ….", has_credential=True
                )
            if credentials:
                return await self._authenticator.authenticate(credentials[0])
        except InvalidCredentialError as error:
            raise _unauthorized(str(error), has_credential=True) from None
        except AccessUnavailableError:
            raise ProblemError(
                ProblemType.ACCESS_UNAVAILABLE,
                "Keys cannot be read now, and this process does not know this one. Send the request again.",
                retry_after=2,
            ) from None
        if required:
            raise _unauthorized(_SEND_ONE, has_credential=False)
        return ANONYMOUS

    async def _name_tenant(self, principal: Principal, names: list[str]) -> Principal:
        """Returns the administrator as a member of the tenant that the query names, if it names one."""
        if not names:
            return principal
        name = names[0]
        if len(names) > 1 or not name:
            raise invalid_field("query:tenant", "must be the name of one tenant")
        if (await self._directory.load()).find_tenant(name) is None:
            raise not_found(f"The tenant {name[:100]}")
        return replace(principal, tenant=name, lists_all=False)


def _find_credentials(scope: Scope) -> list[str]:
    """Returns the keys and access tokens in the headers. One of another scheme than Bearer is empty."""
    headers = Headers(scope=scope)
    bearers = [_BEARER.fullmatch(value.strip()) for value in headers.getlist("authorization")]
    return [*(found[1] if found else "" for found in bearers), *map(str.strip, headers.getlist("x-api-key"))]


def _unauthorized(detail: str, *, has_credential: bool) -> ProblemError:
    challenge = CHALLENGE + (', error="invalid_token"' if has_credential else "")
    return ProblemError(ProblemType.UNAUTHORIZED, detail, headers={"WWW-Authenticate": challenge})


def _without_keys() -> ProblemError:
    return ProblemError(
        ProblemType.FORBIDDEN,
        "This gateway has no keys. Create the first one with `sevenfold keys create --tenant default --scopes admin "
        "--write`, and start the gateway again.",
    )
