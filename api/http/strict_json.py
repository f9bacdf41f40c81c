"""JSON bodies, read strictly (`sevenfold.contracts.strict_json`), and query parameters that exist."""

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

from sevenfold.api.http.problems import FieldError, ProblemError, ProblemType
from sevenfold.contracts.strict_json import parse_json

# Of a body itself; each unknown one costs an error of its own.
_MAX_FIELDS = 500


class InvalidJsonError(HTTPException):
    """What is wrong with the body's JSON, and where. (FastAPI lets only this class through from a body's reader.)"""

    def __init__(self, error: ValueError) -> None:
        super().__init__(400, f"{error}.")


class _StrictRequest(Request):
    async def json(self) -> Any:
        if not hasattr(self, "_json"):
            try:
                self._json = parse_json(await self.body())
                if isinstance(self._json, dict) and len(self._json) > _MAX_FIELDS:
                    raise ValueError(f"it has more than {_MAX_FIELDS} fields")
            except ValueError as error:
                raise InvalidJsonError(error) from None
        return self._json


class StrictJsonRoute(APIRoute):
    """The route class of every router that takes bodies."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """FastAPI's own handler over a request that reads strictly. Raises the problem of a query parameter that does
        not exist: a misspelt one would silently do nothing.
        """
        handler = super().get_route_handler()
        known = _query_parameters(self.dependant)

        async def strict_handler(request: Request) -> Response:
            if unknown := [name for name in request.query_params if name not in known]:
                there_are = f"; there are: {', '.join(sorted(known))}" if known else ""
                detail = f"There is no such query parameter here{there_are}."
                errors = [FieldError(pointer=f"query:{name}", detail=detail) for name in unknown[:50]]
                raise ProblemError(ProblemType.INVALID, f"query:{unknown[0]}: {detail}", errors=errors)
            return await handler(_StrictRequest(request.scope, request.receive))

        return strict_handler


def _query_parameters(dependant: Dependant) -> set[str]:
    """The names of a route's query parameters, and of its dependencies'."""
    names = {field.alias for field in dependant.query_params}
    return names.union(*(_query_parameters(one) for one in dependant.dependencies))
