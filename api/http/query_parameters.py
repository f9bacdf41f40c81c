"""Parameters that are taken out of the query before a handler sees it."""

from urllib.parse import unquote_plus

from starlette.types import ASGIApp, Receive, Scope, Send

# Where the run tokens of a request stand once they are out of its query: `scope[RUN_TOKENS]`, a list.
RUN_TOKENS = "sevenfold.run_tokens"


def take_parameter(scope: Scope, name: str) -> list[str]:
    """Removes a parameter from the query, however its name is encoded, and returns its values."""
    if not scope["query_string"]:
        return []
    values, kept = [], []
    for part in scope["query_string"].split(b"&"):
        found, _, value = part.partition(b"=")
        if unquote_plus(found.decode("latin-1")) == name:
            values.append(unquote_plus(value.decode("latin-1")))
        else:
            kept.append(part)
    if values:
        scope["query_string"] = b"&".join(kept)
    return values


class RunTokenMiddleware:
    """The outermost ASGI middleware: takes run tokens out of the query, so that nothing behind it can log them."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket"):
            scope[RUN_TOKENS] = take_parameter(scope, "token")
        await self._app(scope, receive, send)
