"""Reads and checks the values of settings, as the environment has them."""

import re
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field

from sevenfold.contracts.webhooks.delivery import DEFAULT_SCHEDULE

Port = Annotated[int, Field(ge=1, le=65535)]


def check_name(name: str) -> str:
    # Visibility queries contain the name, so it must not contain quotes.
    if not re.fullmatch(r"[\w.:/-]{1,200}", name):
        raise ValueError("must consist of letters, digits and . : / _ -")
    return name


def check_build_id(name: str | None) -> str | None:
    if name is not None and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,199}", name):
        raise ValueError("must be up to 200 letters, digits and . _ + -, and begin with a letter or digit")
    return name


def check_deployment_name(name: str | None) -> str | None:
    # Temporal takes a dot as the end of the name.
    if name is not None and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,199}", name):
        raise ValueError("must be up to 200 letters, digits and _ -, and begin with a letter or digit")
    return name


def parse_schedule(text: object) -> object:
    """Parses delays such as `0,5,300`."""
    if not isinstance(text, str):
        return text
    if not text.strip():  # A compose file passes an unset variable as an empty string.
        return DEFAULT_SCHEDULE
    parts = text.split(",")
    if len(parts) > 50 or not all(re.fullmatch(r"\s*\d{1,7}(\.\d{1,3})?\s*", part) for part in parts):
        raise ValueError("must be up to 50 delays in seconds, such as 0,5,300")
    return tuple(map(float, parts))


# Any host, a name, or an IPv6 address; no port.
_HOST_NAME = re.compile(r"\*|[A-Za-z0-9_.-]{1,253}|[0-9A-Fa-f.]*:[0-9A-Fa-f.]*:[0-9A-Fa-f:.]*")


def parse_names(text: object) -> object:
    """Parses host names: `gateway.example.com,gateway`."""
    names = [name.strip() for name in text.split(",") if name.strip()] if isinstance(text, str) else text
    if not isinstance(names, list):
        return names
    names = [name.strip("[]") for name in names]
    if not all(_HOST_NAME.fullmatch(name) for name in names):
        raise ValueError("must be host names without scheme, port or path, separated by commas")
    return tuple(names)


def parse_origins(text: object) -> object:
    """Parses origins: `https://app.example.com,http://localhost:3000`."""
    origins = [origin.strip() for origin in text.split(",") if origin.strip()] if isinstance(text, str) else text
    if isinstance(origins, list) and not all(re.fullmatch(r"https?://[^/?#@\s*]+", origin) for origin in origins):
        raise ValueError("must be origins such as https://app.example.com, separated by commas, without a path or *")
    return tuple(origin.lower() for origin in origins) if isinstance(origins, list) else origins


def check_public_url(url: str | None) -> str | None:
    if url is None or not url.strip():  # as a compose file writes a variable that is not set
        return None
    if not re.fullmatch(r"https?://[^/?#@\s]+(/[^?#\s]*)?", url):
        raise ValueError(
            "must be the address at which clients reach this gateway, such as https://agents.example.com"
        )
    return url.rstrip("/")


_LEVEL = re.compile(r"(?:([A-Za-z_][\w.]*)=)?(debug|info|warning|error)")


def parse_levels(text: str) -> dict[str, str]:
    found = [_LEVEL.fullmatch(part.strip()) for part in text.split(",") if part.strip()]
    return {"": "info", **{one[1] or "": one[2] for one in found if one}}


def check_levels(text: str) -> str:
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not all(map(_LEVEL.fullmatch, parts)) or sum("=" not in part for part in parts) > 1:
        raise ValueError(
            "must be debug, info, warning or error, and may name levels of loggers: info,sevenfold.api=debug"
        )
    return text


def parse_optional(text: object) -> object:
    return None if isinstance(text, str) and not text.strip() else text  # as a compose file writes an unset variable


def parse_pairs(text: object) -> object:
    """Parses pairs: `history.hostLevelCacheMaxSize=500,…`."""
    pairs = [pair for pair in text.split(",") if pair.strip()] if isinstance(text, str) else text
    if isinstance(pairs, list) and not all(re.fullmatch(r"[A-Za-z.]+=[^,\s]+", pair.strip()) for pair in pairs):
        raise ValueError("must be pairs such as history.hostLevelCacheMaxSize=500, separated by commas")
    return tuple(pair.strip() for pair in pairs) if isinstance(pairs, list) else pairs


BuildId = Annotated[str | None, BeforeValidator(parse_optional), AfterValidator(check_build_id)]
DeploymentName = Annotated[str | None, BeforeValidator(parse_optional), AfterValidator(check_deployment_name)]
