"""What a user's URL must look like: looked at when it is given, and again before anything is sent to it."""

import re
from ipaddress import IPv4Address, IPv6Address, ip_address

import httpx

from sevenfold.adapters.outbound.addresses import UnsafeUrlError, is_allowed, is_loopback

MAX_URL_LENGTH = 2048
_PORTS = (80, 443)

_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_HOST_NAME = re.compile(rf"(?=.{{1,253}}\Z){_LABEL}(?:\.{_LABEL})*")

# Resolvers read a name whose last part is a number as an address: 127.1, 0x7f.1, 2130706433.
_ADDRESS_IN_DISGUISE = re.compile(r"(?:.*\.)?(?:[0-9]+|0x[0-9a-f]*)")

_NOT_A_URL = "This is not a valid URL. Give one such as https://example.com/path."


def check_url(url: str, *, allow_loopback: bool) -> httpx.URL:
    """The URL, parsed, if its form is harmless; where its host name leads is looked at when it is connected to.

    `allow_loopback` (in development only) lets in http, this machine, and any port on this machine.
    Raises UnsafeUrlError.
    """
    parsed = _parse_url(url)
    if parsed.scheme != "https" and not (allow_loopback and parsed.scheme == "http"):
        raise UnsafeUrlError("Only https is spoken to URLs. Give one that begins with https://.")
    if parsed.userinfo:
        raise UnsafeUrlError("The URL has a user name or password in it. Leave out everything up to the @.")
    host = parsed.raw_host.decode("ascii")
    _check_host(host, allow_loopback=allow_loopback)
    _check_port(parsed.port, local=allow_loopback and _is_local(host))
    return parsed


def literal_address(host: str) -> IPv4Address | IPv6Address | None:
    """The address if the host is one and not a name. IPv6 comes without brackets."""
    try:
        return ip_address(host)
    except ValueError:
        return None


def _parse_url(url: str) -> httpx.URL:
    if len(url) > MAX_URL_LENGTH:
        raise UnsafeUrlError(f"The URL is longer than {MAX_URL_LENGTH} characters. Give a shorter one.")
    # Lone surrogates and marks that reverse the reading direction are not printable either.
    if not url.isprintable() or " " in url:
        raise UnsafeUrlError("The URL has blanks or unprintable characters in it. Percent-encode or remove them.")
    try:
        parsed = httpx.URL(url)
        # httpx decodes it now and then, which fails for some names that begin with xn--
        named = bool(parsed.host)
    except (httpx.InvalidURL, ValueError):
        raise UnsafeUrlError(_NOT_A_URL) from None
    if not named:
        raise UnsafeUrlError(_NOT_A_URL)
    if len(str(parsed)) > MAX_URL_LENGTH:
        raise UnsafeUrlError(
            f"The URL is longer than {MAX_URL_LENGTH} characters once percent-encoded. Give a shorter one."
        )
    return parsed


def _check_host(host: str, *, allow_loopback: bool) -> None:
    address = literal_address(host)
    if address is not None:
        if not is_allowed(address, allow_loopback=allow_loopback):
            raise UnsafeUrlError(
                "The URL's host is an address that is not on the public internet; such are not called. "
                "Give the URL of a public host."
            )
        return
    if _ADDRESS_IN_DISGUISE.fullmatch(host):
        raise UnsafeUrlError(
            "The URL's host is an address in an unusual form. Write four decimal numbers, or a host name."
        )
    if host.endswith("."):
        raise UnsafeUrlError("The URL's host name ends with a dot. Write it without.")
    if not _HOST_NAME.fullmatch(host):
        raise UnsafeUrlError("The URL's host name is not one. Give letters, digits and hyphens between dots.")
    if _is_local(host) and not allow_loopback:
        raise UnsafeUrlError(
            "The URL's host is the gateway's own machine, which is not called. Give the URL of a public host."
        )


def _check_port(port: int | None, *, local: bool) -> None:
    if port is None or port in _PORTS or (local and 0 < port < 65536):
        return
    raise UnsafeUrlError("The URL's port is refused: only 80 and 443 are called. Leave the port out.")


def _is_local(host: str) -> bool:
    address = literal_address(host)
    if address is not None:
        return is_loopback(address)
    return host == "localhost" or host.endswith(".localhost")
