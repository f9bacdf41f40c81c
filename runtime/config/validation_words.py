"""pydantic's errors in words, for people who write configuration files and variables."""

import re
from collections.abc import Mapping
from typing import Any

# By pydantic's type of an error; the names in braces are of its context.
_WORDS = {
    "missing": "is missing",
    "string_type": "must be text in quotes",
    "string_too_short": "must have at least {min_length} characters",
    "string_too_long": "must have at most {max_length} characters",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "finite_number": "must be a finite number",
    "greater_than": "must be greater than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be at most {le}",
    "literal_error": "must be {expected}",
    "enum": "must be {expected}",
    "list_type": "must be a list: [ … ]",
    "tuple_type": "must be a list: [ … ]",
    "frozen_set_type": "must be a list: [ … ]",
    "set_type": "must be a list: [ … ]",
    "dict_type": "must be a table",
    "model_type": "must be a table",
    "model_attributes_type": "must be a table",
    "too_short": "must have at least {min_length} entries",
    "too_long": "must have at most {max_length} entries",
    "union_tag_not_found": "has no {discriminator}",
    "path_type": "must be a path in quotes",
    "url_parsing": "must be a URL",
    "datetime_parsing": "must be a time, such as 2026-11-22T10:00:00Z",
}
_NAME_PATTERN = re.compile(r"^\^\[A-Za-z")


def to_words(error: Mapping[str, Any]) -> str:
    """Returns what is wrong with a value, to follow its name: `must be a whole number`."""
    kind, context = error["type"], dict(error.get("ctx") or {})
    if kind == "string_pattern_mismatch":
        is_name = _NAME_PATTERN.match(context["pattern"])
        return "must be a name of letters, digits and . _ -" if is_name else f"must match {context['pattern']}"
    if kind in _WORDS:
        return _WORDS[kind].format_map({name: str(value).strip("'") for name, value in context.items()})
    text = str(error["msg"]).removeprefix("Value error, ").removeprefix("Assertion failed, ")
    return text.replace("Input should be", "must be").replace("Value should", "must")
