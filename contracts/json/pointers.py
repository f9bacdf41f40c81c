"""JSON Pointers (RFC 6901)."""

import re
from typing import Any, Final

_INDEX = re.compile(r"0|[1-9][0-9]{0,8}")


class Missing:
    """What a pointer leads to if there is nothing; JSON's `null` is something."""


MISSING: Final = Missing()


def escape_pointer(key: str) -> str:
    """Escapes a key for a pointer."""
    return key.replace("~", "~0").replace("/", "~1")


def unescape_pointer(token: str) -> str:
    """Returns the key that a pointer's token stands for."""
    return token.replace("~1", "/").replace("~0", "~")


def find_pointer(value: Any, pointer: str) -> Any:
    """Returns what a pointer leads to in a JSON value, or MISSING. The empty pointer leads to the value itself."""
    for token in pointer.split("/")[1:]:
        key = unescape_pointer(token)
        if isinstance(value, dict):
            value = value.get(key, MISSING)
        elif isinstance(value, list) and _INDEX.fullmatch(key) and int(key) < len(value):
            value = value[int(key)]
        else:
            return MISSING
    return value
