"""Strict JSON bodies (`sevenfold.contracts.json.strict`), and the refusal of unknown query parameters."""

from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from fastapi import Request, Response
from fastapi.dependencies.models import Dependant
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel, ValidationError
from starlette.exceptions import HTTPException

from sevenfold.api.http.problems import FieldError, ProblemError, ProblemType
from sevenfold.contracts.json.strict import parse_json

T = TypeVar("T", bound=BaseModel)

# Maximum number of top-level fields: each unknown field costs an error.
_MAX_FIELDS = 500


class InvalidJsonError(HTTPException):
    """Invalid JSON in a body, with the reason and place. (FastAPI lets only HTTPExceptions leave a body's parser.)"""

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


def validate_body(model: type[T], value: Any) -> T:
    """Returns the model of a body that FastAPI does not read. Raises RequestValidationError, as FastAPI does."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise RequestValidationError([{**each, "loc": ("body", *each["loc"])} for each in error.errors()]) from None


class StrictJsonRoute(APIRoute):
    """The route class of all routers. `ignores_unknown_parameters`: for clients of other people's making."""

    ignores_unknown_parameters = False

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Returns FastAPI's handler over a request with strict JSON. Raises 422 for an unknown query parameter,
        because a misspelt one would silently have no effect.
        """
        handler = super().get_route_handler()
        known = _query_parameters(self.dependant)
        is_strict = not self.ignores_unknown_parameters

        async def strict_handler(request: Request) -> Response:
            if is_strict and (unknown := [name for name in request.query_params if name not in known]):
                there_are = f"; there are: {', '.join(sorted(known))}" if known else ""
                detail = f"There is no such query parameter{there_are}."
                errors = [FieldError(pointer=f"query:{name}", detail=detail) for name in unknown[:50]]
                raise ProblemError(ProblemType.INVALID, f"query:{unknown[0]}: {detail}", errors=errors)
            return await handler(_StrictRequest(request.scope, request.receive))

        return strict_handler


def _query_parameters(dependant: Dependant) -> set[str]:
    """Returns the names of the query parameters of a route and its dependencies."""
    names = {field.alias for field in dependant.query_params}
    return names.union(*(_query_parameters(one) for one in dependant.dependencies))
