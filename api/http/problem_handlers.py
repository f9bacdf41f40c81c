"""Translates every exception that leaves a handler into a problem."""

from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from typing import Any

import structlog
from fastapi import FastAPI, Request, Response, WebSocket
from fastapi.exceptions import RequestValidationError, WebSocketRequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import BaseRoute, Match
from temporalio.client import WorkflowUpdateFailedError
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError, RPCStatusCode

from sevenfold.adapters.access.directory import TenantErasingError
from sevenfold.adapters.encryption.key_ring import DecryptionError
from sevenfold.adapters.payloads.stores import PayloadStoreError
from sevenfold.adapters.quotas.exceeded import QuotaExceededError
from sevenfold.adapters.temporal.errors import is_transient
from sevenfold.adapters.temporal.updates import UpdateTimeoutError
from sevenfold.api.http.problems import MEDIA_TYPE, FieldError, ProblemError, ProblemType
from sevenfold.api.http.quota_problems import from_exceeded_quota
from sevenfold.api.http.refusals import find_refusal, unanswered
from sevenfold.api.http.request_id import HEADER, request_id
from sevenfold.api.http.strict_json import InvalidJsonError
from sevenfold.contracts.agents.errors import ErrorCode
from sevenfold.contracts.json.pointers import escape_pointer
from sevenfold.contracts.runs.streams import StreamLogError

log = structlog.get_logger(__name__)

_TYPE_OF_STATUS = {
    400: ProblemType.BAD_REQUEST,
    404: ProblemType.NOT_FOUND,
    405: ProblemType.METHOD_NOT_ALLOWED,
    413: ProblemType.TOO_LARGE,
    415: ProblemType.UNSUPPORTED_MEDIA_TYPE,
}


def install(app: FastAPI) -> None:
    """Registers a handler for each exception in the table of translations."""
    for exception, translate in _TRANSLATIONS.items():
        app.add_exception_handler(exception, _build_handler(translate))
    app.add_exception_handler(WebSocketRequestValidationError, _refuse_handshake)


async def _refuse_handshake(socket: WebSocket, error: Exception) -> None:
    """Answers a handshake whose parameters are invalid; the framework would send a 403 in plain text."""
    assert isinstance(error, WebSocketRequestValidationError), "the only type it is registered for"  # noqa: S101
    await socket.send_denial_response(render(_from_validation(RequestValidationError(error.errors()))))


def to_problem(error: Exception) -> ProblemError:
    """Translates an exception for a client whose response has started."""
    translate = next(translate for kind, translate in _TRANSLATIONS.items() if isinstance(error, kind))
    problem = translate(error)
    if problem.problem_type is ProblemType.INTERNAL:
        log.error("stream failed", exc_info=error)
    return problem


def _build_handler(translate: Callable[[Any], ProblemError]) -> Callable[[Request, Exception], Awaitable[Response]]:
    async def handle(request: Request, error: Exception) -> Response:
        problem = translate(error)
        if problem.problem_type is ProblemType.INTERNAL:
            route = getattr(request.scope.get("route"), "path", None)  # a path may have a link's token
            log.error("request failed", route=route, exc_info=error)
        if problem.problem_type is ProblemType.METHOD_NOT_ALLOWED:
            problem.headers["Allow"] = _allowed_methods(request)
        return render(problem)

    return handle


def _allowed_methods(request: Request) -> str:
    """Returns all methods of a path. (Starlette returns only those of the first route that matches.)"""
    routes = list(list_routes(request.app.routes))
    first = next((route for route in routes if route.matches(request.scope)[0] is not Match.NONE), None)
    path = getattr(first, "path", None)
    allowed = {
        method
        for route in routes
        if getattr(route, "path", "") == path
        for method in getattr(route, "methods", None) or ()
    }
    return ", ".join(sorted(allowed | ({"HEAD"} if "GET" in allowed else set())))


def list_routes(routes: Iterable[BaseRoute]) -> Iterator[BaseRoute]:
    """Yields all routes of an app. FastAPI keeps an included router as one route without methods."""
    for route in routes:
        included = getattr(route, "original_router", None)
        yield from list_routes(included.routes) if included is not None else (route,)


def render(problem: ProblemError, identity: str | None = None) -> Response:
    """Renders the response of a problem. `identity` is the request id where there is no request yet."""
    headers = dict(problem.headers)
    if problem.retry_after_seconds is not None:
        headers["Retry-After"] = str(problem.retry_after_seconds)
    if identity is not None:
        headers[HEADER] = identity
    body = problem.body(identity or request_id())
    return Response(
        body.model_dump_json(by_alias=True, exclude_none=True),
        status_code=problem.problem_type.status,
        headers=headers,
        media_type=MEDIA_TYPE,
    )


def _from_problem(error: ProblemError) -> ProblemError:
    return error


def _from_http(error: HTTPException) -> ProblemError:
    kind = _TYPE_OF_STATUS.get(
        error.status_code, ProblemType.INTERNAL if error.status_code >= 500 else ProblemType.BAD_REQUEST
    )
    detail = error.detail if error.status_code != 404 else "There is no such path. /docs lists all paths."
    return ProblemError(kind, detail, headers=error.headers)


def _from_json(error: InvalidJsonError) -> ProblemError:
    return ProblemError(ProblemType.INVALID_JSON, error.detail)


def _from_validation(error: RequestValidationError) -> ProblemError:
    errors = [FieldError(pointer=_pointer(e["loc"]), detail=_sentence(e)) for e in error.errors()[:50]]
    if isinstance(error.body, bytes):  # FastAPI does not parse a body of another content type
        return ProblemError(
            ProblemType.UNSUPPORTED_MEDIA_TYPE, "Send the body as JSON, with Content-Type: application/json."
        )
    first = errors[0]
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    return ProblemError(ProblemType.INVALID, f"{first.pointer or 'body'}: {first.detail}{more}", errors=errors)


def _pointer(location: Sequence[int | str]) -> str:
    """Returns a JSON pointer (RFC 6901) into the body, else the part and the name, such as `query:limit`."""
    origin, *parts = location
    keys = [escape_pointer(str(part)) for part in parts]
    return "".join(f"/{key}" for key in keys) if origin == "body" else f"{origin}:{'/'.join(keys)}"


def _sentence(error: dict[str, Any]) -> str:
    if error["type"] == "extra_forbidden":
        return "There is no such field. /docs lists the fields."
    return str(error["msg"]).removeprefix("Value error, ")


def _from_rpc(error: RPCError) -> ProblemError:
    failed_inside = error.status in (RPCStatusCode.INTERNAL, RPCStatusCode.UNKNOWN)
    if failed_inside:  # the server's own trouble, such as a store that does not answer it; seldom permanent
        log.error("Temporal failed", status=error.status.name, error=error.message)
    if failed_inside or is_transient(error):
        return ProblemError(
            ProblemType.TEMPORAL_UNAVAILABLE,
            "Temporal is unavailable. Send the request again, with the same Idempotency-Key if it starts a run.",
            retry_after=2,
        )
    return _from_unexpected(error)


def _from_payload_store(error: PayloadStoreError) -> ProblemError:
    log.error("payload store failed", error=str(error))  # its message is for the operator only
    return ProblemError(
        ProblemType.STORAGE_UNAVAILABLE,
        "The store for payloads over 256 kB is unavailable. Send the request again, with the same "
        "Idempotency-Key if it starts a run.",
        retry_after=5,
    )


def _from_decryption(error: DecryptionError) -> ProblemError:
    log.error("stored data cannot be decrypted", error=str(error))
    return ProblemError(ProblemType.CODEC_KEY_MISSING, str(error), retry_after=30)


def _from_stream_log(error: StreamLogError) -> ProblemError:
    log.error("stream log is unavailable", error=str(error))
    return ProblemError(
        ProblemType.STORAGE_UNAVAILABLE,
        "The log of streams is unavailable. The run continues; send the request again.",
        retry_after=2,
    )


def _from_erasure(error: TenantErasingError) -> ProblemError:
    return ProblemError(ProblemType.TENANT_ERASED, str(error))


def _from_refusal(error: WorkflowUpdateFailedError) -> ProblemError:
    return find_refusal(error) or _from_unexpected(error)


def _from_disconnect(_: ClientDisconnect) -> ProblemError:
    return ProblemError(ProblemType.REQUEST_TIMEOUT, "The connection ended before the request was complete.")


def _from_failure(error: ApplicationError) -> ProblemError:
    if error.type == ErrorCode.PAYLOAD_LOST:
        return ProblemError(ProblemType.PAYLOAD_LOST, error.message)
    return _from_unexpected(error)


def _from_unexpected(_: Exception) -> ProblemError:
    return ProblemError(
        ProblemType.INTERNAL, "An unexpected error occurred. The gateway's log has it under this requestId."
    )


_TRANSLATIONS: dict[type[Exception], Callable[[Any], ProblemError]] = {
    ProblemError: _from_problem,
    InvalidJsonError: _from_json,
    HTTPException: _from_http,
    RequestValidationError: _from_validation,
    RPCError: _from_rpc,
    PayloadStoreError: _from_payload_store,
    DecryptionError: _from_decryption,
    StreamLogError: _from_stream_log,
    TenantErasingError: _from_erasure,
    QuotaExceededError: from_exceeded_quota,
    WorkflowUpdateFailedError: _from_refusal,
    UpdateTimeoutError: unanswered,
    ClientDisconnect: _from_disconnect,
    ApplicationError: _from_failure,
    Exception: _from_unexpected,
}
