"""Checks the URLs of brokers and of Redis at start, and keeps their passwords out of logs.

The clients' own errors come late, and some quote the URL. The messages of this module never do.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import unquote

from sevenfold.runtime.process.logs import hide_in_logs
from sevenfold.runtime.startup import StartupError

_URL = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<authority>[^/?#]*)(?P<rest>.*)", re.DOTALL)
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_.-]+)(:(?P<port>[0-9]{1,5}))?")


@dataclass(frozen=True)
class UrlForm:
    """What a URL may look like. `takes_several`: hosts separated by commas; `takes_user`: user and password;
    `takes_query`: parameters; `takes_path`: what its path is, None for any.
    """

    schemes: Sequence[str]
    example: str
    takes_several: bool = False
    takes_user: bool = True
    takes_query: bool = True
    takes_path: re.Pattern[str] | None = None


_NO_PATH, _REDIS_PATH = re.compile(r"/?"), re.compile(r"(/[0-9]{0,4})?")
REDIS_FORM = UrlForm(("redis", "rediss", "unix"), "redis://127.0.0.1:6379/0", takes_path=_REDIS_PATH)
BROKER_FORMS = {
    "nats": UrlForm(("nats", "tls", "ws", "wss"), "nats://127.0.0.1:4222"),
    "rabbitmq": UrlForm(("amqp", "amqps"), "amqp://127.0.0.1:5672/"),
    "redis": REDIS_FORM,
    "kafka": UrlForm(
        ("kafka",),
        "kafka://127.0.0.1:9092",
        takes_several=True,
        takes_user=False,
        takes_query=False,
        takes_path=_NO_PATH,
    ),
}


def check_server_url(what: str, url: str, form: UrlForm) -> None:
    """Hides the URL's password in logs. Raises StartupError, whose message names the mistake and
    contains no part of the URL.

    `what` names the broker or the variable.
    """
    if form.takes_several and "://" not in url:
        url = f"{form.schemes[0]}://{url}"
    found = _URL.fullmatch(url)
    if found is None or found["scheme"].lower() not in form.schemes:
        schemes = " or ".join(f"{scheme}://" for scheme in form.schemes)
        raise _problem(what, f"does not begin with {schemes}", form)
    userinfo, has_user, hosts = found["authority"].rpartition("@")
    _hide_password(userinfo)
    if "@" in found["rest"] or "@" in userinfo:
        raise _problem(what, "has a user or password with / ? # or @. Percent-encode them, such as %2F", form)
    if has_user and not form.takes_user:
        raise _problem(what, "has a user. Kafka's user and password belong into the section's sasl", form)
    if found["scheme"].lower() == "unix":
        return
    if "?" in found["rest"] and not form.takes_query:
        _hide_parameters(found["rest"])
        raise _problem(what, "has a query, which is not used", form)
    if form.takes_path is not None and not form.takes_path.fullmatch(found["rest"].partition("?")[0]):
        raise _problem(what, "has a path that is not understood", form)
    for host in hosts.split(",") if form.takes_several else [hosts]:
        port = match["port"] if (match := _HOST.fullmatch(host)) else "0"
        if port is not None and not 1 <= int(port) <= 65_535:
            raise _problem(what, "has no valid host and port", form)


def _hide_password(userinfo: str) -> None:
    user, colon, password = userinfo.partition(":")
    for secret in (password,) if colon else (user,):  # NATS takes a token in the user's place.
        for spelling in {secret, unquote(secret)} - {""}:
            hide_in_logs(spelling)


def _hide_parameters(rest: str) -> None:
    for value in re.findall(r"=([^&#]+)", rest):
        hide_in_logs(value)


def _problem(what: str, problem: str, form: UrlForm) -> StartupError:
    return StartupError(f"{what} {problem}. Write it as {form.example}.")
