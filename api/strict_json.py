"""JSON bodies, read strictly.

The standard library's reader takes NaN, lets lone surrogates through to where they cannot be encoded any more,
and falls over deep nesting. pydantic's refuses all three with a place and a reason.
"""

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute
from pydantic_core import from_json
from starlette.exceptions import HTTPException


class InvalidJsonError(HTTPException):
    """What is wrong with the body's JSON, and where. (FastAPI lets only this class through from a body's reader.)"""

    def __init__(self, error: ValueError) -> None:
        super().__init__(400, f"{error}.")


class _StrictRequest(Request):
    async def json(self) -> Any:
        if not hasattr(self, "_json"):
            try:
                self._json = from_json(await self.body(), allow_inf_nan=False, cache_strings="keys")
            except ValueError as error:
                raise InvalidJsonError(error) from None
        return self._json


class StrictJsonRoute(APIRoute):
    """The route class of every router that takes bodies."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """FastAPI's own handler over a request that reads strictly."""
        handler = super().get_route_handler()

        async def strict_handler(request: Request) -> Response:
            return await handler(_StrictRequest(request.scope, request.receive))

        return strict_handler
