"""Checks JSON Schemas of agents, and answers of people against them.

No schema is fetched from anywhere, and no pattern takes longer than its text.
"""

import json
from itertools import islice
from typing import Any, NoReturn

import jsonschema_rs
from pydantic import JsonValue

from sevenfold.contracts.json.schema_cost import InvalidSchemaError, check_cost
from sevenfold.contracts.payload import Payload

_MAX_ERRORS = 20
MAX_SCHEMA_BYTES = 64_000
_MAX_ITERATED_BYTES = 4_000
# Linear in the text: a person's answer must not stop a worker. Look-around is not supported.
_PATTERNS = jsonschema_rs.RegexOptions()


class AnswerError(Payload):
    """Why an answer does not fit: a pointer into the body of the request, and a sentence."""

    pointer: str
    detail: str


def check_schema(schema: Any) -> None:
    """Raises InvalidSchemaError."""
    try:
        size = len(json.dumps(schema, allow_nan=False).encode())
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidSchemaError(f"it is not JSON: {error}") from error
    if size > MAX_SCHEMA_BYTES:
        raise InvalidSchemaError(f"it has {size:,} bytes, and may have {MAX_SCHEMA_BYTES:,}")
    if not isinstance(schema, dict | bool):
        raise InvalidSchemaError("it is neither an object nor true or false")
    check_cost(schema)
    _build(schema)


def check_content(schema: JsonValue, content: JsonValue, pointer: str) -> list[AnswerError]:
    """Returns what does not fit; `pointer` is where the content stands. Of a large content only the first error: each
    holds a copy of its part of the schema.
    """
    validator = _build(schema)
    if validator.is_valid(content):
        return []
    if len(json.dumps(content)) <= _MAX_ITERATED_BYTES:
        return [_to_error(error, pointer) for error in islice(validator.iter_errors(content), _MAX_ERRORS)]
    try:
        validator.validate(content)
    except jsonschema_rs.ValidationError as error:
        return [_to_error(error, pointer)]
    return []


def _to_error(error: jsonschema_rs.ValidationError, pointer: str) -> AnswerError:
    path = "".join(f"/{str(part).replace('~', '~0').replace('/', '~1')}" for part in error.instance_path)
    return AnswerError(pointer=pointer + path, detail=error.message[:500])


def _build(schema: Any) -> Any:
    try:
        return jsonschema_rs.validator_for(
            schema, validate_formats=True, pattern_options=_PATTERNS, retriever=_refuse_to_fetch
        )
    except (ValueError, jsonschema_rs.ValidationError) as error:
        raise InvalidSchemaError(str(error).splitlines()[0][:500]) from error


def _refuse_to_fetch(uri: str) -> NoReturn:
    raise ValueError(f"{uri} is not fetched: write what it has into the schema")
