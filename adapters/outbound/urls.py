"""Checks URLs of users: when they are submitted, and again before each request."""

import re
from ipaddress import IPv4Address, IPv6Address, ip_address

import httpx

from sevenfold.adapters.outbound.addresses import UnsafeUrlError, is_allowed, is_loopback

MAX_URL_LENGTH = 2048
_PORTS = (80, 443)

_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_HOST_NAME = re.compile(rf"(?=.{{1,253}}\Z){_LABEL}(?:\.{_LABEL})*")

# Resolvers read a name whose last label is a number as an address: 127.1, 0x7f.1, 2130706433.
_ADDRESS_IN_DISGUISE = re.compile(r"(?:.*\.)?(?:[0-9]+|0x[0-9a-f]*)")

_NOT_A_URL = "This is not a valid URL. Use one such as https://example.com/path."


def check_url(url: str, *, allow_loopback: bool) -> httpx.URL:
    """Returns the parsed URL if its form is allowed. The addresses of its host are checked when connecting.

    `allow_loopback` (in development only) allows http, this machine, and any port on this machine.

    Raises UnsafeUrlError.
    """
    parsed = _parse_url(url)
    if parsed.scheme != "https" and not (allow_loopback and parsed.scheme == "http"):
        here = " (for this machine, in development: SEVENFOLD_ALLOW_LOOPBACK_URLS=true)"
        hint = here if _is_local(parsed.raw_host.decode("ascii")) else ""
        raise UnsafeUrlError(f"Only https URLs are called. Use one that starts with https://.{hint}")
    if parsed.query == b"***":
        raise UnsafeUrlError("The URL has its query hidden, as answers show it. Send the whole URL, or leave it out.")
    if parsed.userinfo:
        raise UnsafeUrlError("The URL contains a user name or password. Remove everything up to the @.")
    host = parsed.raw_host.decode("ascii")
    _check_host(host, allow_loopback=allow_loopback)
    _check_port(parsed.port, local=allow_loopback and _is_local(host))
    return parsed


def literal_address(host: str) -> IPv4Address | IPv6Address | None:
    """Returns the address if the host is one, else None. IPv6 comes without brackets."""
    try:
        return ip_address(host)
    except ValueError:
        return None


def _parse_url(url: str) -> httpx.URL:
    if len(url) > MAX_URL_LENGTH:
        raise UnsafeUrlError(f"The URL is longer than {MAX_URL_LENGTH} characters. Use a shorter one.")
    # Lone surrogates and bidirectional overrides are not printable either.
    if not url.isprintable() or " " in url:
        raise UnsafeUrlError("The URL contains blanks or unprintable characters. Percent-encode or remove them.")
    try:
        parsed = httpx.URL(url)
        # httpx decodes the host on access, which fails for some names that start with xn--.
        named = bool(parsed.host)
    except (httpx.InvalidURL, ValueError):
        raise UnsafeUrlError(_NOT_A_URL) from None
    if not named:
        raise UnsafeUrlError(_NOT_A_URL)
    if len(str(parsed)) > MAX_URL_LENGTH:
        raise UnsafeUrlError(
            f"The URL is longer than {MAX_URL_LENGTH} characters after percent-encoding. Use a shorter one."
        )
    return parsed


def _check_host(host: str, *, allow_loopback: bool) -> None:
    address = literal_address(host)
    if address is not None:
        if not is_allowed(address, allow_loopback=allow_loopback):
            raise UnsafeUrlError(
                "The URL's host is an address that is not on the public internet, which is not called. "
                "Use the URL of a public host."
            )
        return
    if _ADDRESS_IN_DISGUISE.fullmatch(host):
        raise UnsafeUrlError(
            "The URL's host is an address in an unusual form. Use four decimal numbers, or a host name."
        )
    if host.endswith("."):
        raise UnsafeUrlError("The URL's host name ends with a dot. Remove the dot.")
    if not _HOST_NAME.fullmatch(host):
        raise UnsafeUrlError("The URL's host name is invalid. Use letters, digits and hyphens between dots.")
    if _is_local(host) and not allow_loopback:
        raise UnsafeUrlError(
            "The URL's host is the gateway's own machine, which is not called. Use the URL of a public host."
        )


def _check_port(port: int | None, *, local: bool) -> None:
    if port is None or port in _PORTS or (local and 0 < port < 65536):
        return
    raise UnsafeUrlError("The URL's port is refused: only 80 and 443 are called. Remove the port.")


def _is_local(host: str) -> bool:
    address = literal_address(host)
    if address is not None:
        return is_loopback(address)
    return host == "localhost" or host.endswith(".localhost")
