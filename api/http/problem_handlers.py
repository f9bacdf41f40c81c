"""Turns every exception that leaves a door into its problem."""

import math
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from typing import Any

import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import BaseRoute, Match
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError

from sevenfold.adapters.payloads.stores import PayloadStoreError
from sevenfold.adapters.temporal.errors import is_transient
from sevenfold.api.http.problems import MEDIA_TYPE, FieldError, ProblemError, ProblemType, escape_pointer
from sevenfold.api.http.request_id import HEADER, request_id
from sevenfold.api.http.strict_json import InvalidJsonError
from sevenfold.contracts.streams import StreamLogError
from sevenfold.contracts.verdicts import ErrorCode

log = structlog.get_logger(__name__)

_TYPE_OF_STATUS = {
    400: ProblemType.BAD_REQUEST,
    404: ProblemType.NOT_FOUND,
    405: ProblemType.METHOD_NOT_ALLOWED,
    413: ProblemType.TOO_LARGE,
    415: ProblemType.UNSUPPORTED_MEDIA_TYPE,
}


def install(app: FastAPI) -> None:
    """Registers one handler over the table of translations."""
    for exception, translate in _TRANSLATIONS.items():
        app.add_exception_handler(exception, _build_handler(translate))


def to_problem(error: Exception) -> ProblemError:
    """What an exception is to a client to whom an answer is already under way."""
    translate = next(translate for kind, translate in _TRANSLATIONS.items() if isinstance(error, kind))
    problem = translate(error)
    if problem.problem_type is ProblemType.INTERNAL:
        log.error("stream failed", exc_info=error)
    return problem


def _build_handler(translate: Callable[[Any], ProblemError]) -> Callable[[Request, Exception], Awaitable[Response]]:
    async def handle(request: Request, error: Exception) -> Response:
        problem = translate(error)
        if problem.problem_type is ProblemType.INTERNAL:
            log.error("request failed", path=request.url.path, exc_info=error)
        if problem.problem_type is ProblemType.METHOD_NOT_ALLOWED:
            problem.headers["Allow"] = _allowed_methods(request)
        return render(problem)

    return handle


def _allowed_methods(request: Request) -> str:
    """All methods of an address. (Starlette names those of the first route that has it.)"""
    routes = list(_routes(request.app.routes))
    first = next((route for route in routes if route.matches(request.scope)[0] is not Match.NONE), None)
    path = getattr(first, "path", None)
    allowed = {
        method
        for route in routes
        if getattr(route, "path", "") == path
        for method in getattr(route, "methods", None) or ()
    }
    return ", ".join(sorted(allowed | ({"HEAD"} if "GET" in allowed else set())))


def _routes(routes: Iterable[BaseRoute]) -> Iterator[BaseRoute]:
    """All routes; FastAPI keeps an included router as one route that knows no methods."""
    for route in routes:
        included = getattr(route, "original_router", None)
        yield from _routes(included.routes) if included is not None else (route,)


def render(problem: ProblemError, identity: str | None = None) -> Response:
    """The response that says what is wrong; with an id of its own where there is no request yet."""
    headers = dict(problem.headers)
    if problem.retry_after is not None:
        headers["Retry-After"] = str(max(1, math.ceil(problem.retry_after)))
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
    detail = error.detail if error.status_code != 404 else "No door has this address. See /docs."
    return ProblemError(kind, detail, headers=error.headers)


def _from_json(error: InvalidJsonError) -> ProblemError:
    return ProblemError(ProblemType.INVALID_JSON, error.detail)


def _from_validation(error: RequestValidationError) -> ProblemError:
    errors = [FieldError(pointer=_pointer(e["loc"]), detail=_sentence(e)) for e in error.errors()[:50]]
    if isinstance(error.body, bytes):  # FastAPI leaves a body of another content type as it came
        return ProblemError(
            ProblemType.UNSUPPORTED_MEDIA_TYPE, "Send the body as JSON, with Content-Type: application/json."
        )
    first = errors[0]
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    return ProblemError(ProblemType.INVALID, f"{first.pointer or 'body'}: {first.detail}{more}", errors=errors)


def _pointer(location: Sequence[int | str]) -> str:
    """Where a mistake is: RFC 6901 for the body, `query:limit` and the like for the rest."""
    origin, *parts = location
    keys = [escape_pointer(str(part)) for part in parts]
    return "".join(f"/{key}" for key in keys) if origin == "body" else f"{origin}:{'/'.join(keys)}"


def _sentence(error: dict[str, Any]) -> str:
    if error["type"] == "extra_forbidden":
        return "There is no such field; see /docs for those there are."
    return str(error["msg"]).removeprefix("Value error, ")


def _from_rpc(error: RPCError) -> ProblemError:
    if is_transient(error):
        return ProblemError(
            ProblemType.TEMPORAL_UNAVAILABLE,
            "The request could not be handed on. Send it again, with the same Idempotency-Key if it starts a run.",
            retry_after=2,
        )
    return _from_unexpected(error)


def _from_payload_store(error: PayloadStoreError) -> ProblemError:
    log.error("large payloads cannot be kept", error=str(error))  # what it says is for the operator
    return ProblemError(
        ProblemType.STORAGE_UNAVAILABLE,
        "The place for payloads of over 256 kB is out of reach. Send the request again, with the same "
        "Idempotency-Key if it starts a run.",
        retry_after=5,
    )


def _from_stream_log(error: StreamLogError) -> ProblemError:
    log.error("the log of streams is out of reach", error=str(error))
    return ProblemError(
        ProblemType.STORAGE_UNAVAILABLE,
        "What streams have said is out of reach. The runs go on; try again.",
        retry_after=2,
    )


def _from_disconnect(_: ClientDisconnect) -> ProblemError:
    return ProblemError(ProblemType.REQUEST_TIMEOUT, "The connection ended before the request was complete.")


def _from_failure(error: ApplicationError) -> ProblemError:
    if error.type == ErrorCode.PAYLOAD_LOST:
        return ProblemError(ProblemType.PAYLOAD_LOST, error.message)
    return _from_unexpected(error)


def _from_unexpected(_: Exception) -> ProblemError:
    return ProblemError(ProblemType.INTERNAL, "An unexpected error; the log has it under this requestId.")


_TRANSLATIONS: dict[type[Exception], Callable[[Any], ProblemError]] = {
    ProblemError: _from_problem,
    InvalidJsonError: _from_json,
    HTTPException: _from_http,
    RequestValidationError: _from_validation,
    RPCError: _from_rpc,
    PayloadStoreError: _from_payload_store,
    StreamLogError: _from_stream_log,
    ClientDisconnect: _from_disconnect,
    ApplicationError: _from_failure,
    Exception: _from_unexpected,
}
