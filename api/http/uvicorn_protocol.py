"""uvicorn's HTTP protocol with limits: on request heads, on stalled requests, and on connections.

uvicorn has none of these. A client that sends half a head, or one byte of its body per minute, would hold its
connection for ever; and a client that opens as many connections as the process has descriptors would lock out all
others.
"""

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from sevenfold.api.http.connection_limits import HEALTH_CONNECTIONS, ConnectionLimits
from sevenfold.api.http.problem_handlers import render
from sevenfold.api.http.problems import ProblemError, ProblemType
from sevenfold.api.http.request_id import new_request_id
from sevenfold.api.http.websocket_handshake import handshake_problem

# Maximum bytes of a request's line and headers, and maximum number of headers.
_MAX_HEAD_BYTES = 64_000
_MAX_HEADERS = 200

# A body must grow by this many bytes in each period, unless it ends.
_MIN_PROGRESS = 1_024

# How long the rest of a request is read and discarded after its response.
_LINGER_SECONDS = 2.0


def limited_protocol(limits: ConnectionLimits) -> type[asyncio.Protocol]:
    """Returns the protocol class with these limits, for uvicorn's `http` setting."""
    return type("LimitedProtocol", (LimitedHttpProtocol,), {"limits": limits})


class _RefusedError(Exception):
    pass


_TOO_MANY_BYTES = f"is larger than {_MAX_HEAD_BYTES:,} bytes"


def _head_too_large(what: str) -> ProblemError:
    return ProblemError(ProblemType.HEAD_TOO_LARGE, f"The request's head {what}. Shorten the URL and the headers.")


_UNREADABLE_HANDSHAKE = ProblemError(
    ProblemType.HEAD_TOO_LARGE,
    "The WebSocket handshake cannot be read: it may have 128 headers, and each may have 8,190 bytes.",
)


class LimitedHttpProtocol(HttpToolsProtocol):
    """One connection. At most one timer runs at a time: for the head, for the body, or uvicorn's own for an idle
    connection.
    """

    limits: ConnectionLimits

    # Slots, because beyond 30 attributes Python gives every connection a dictionary of 1 kB of its own.
    __slots__ = (
        "_head_bytes",
        "_head_pending",
        "_over_cap",
        "_received",
        "_received_before",
        "_refusal",
        "_request_complete",
        "_stall_timer",
        "_timer",
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._timer: asyncio.TimerHandle | None = None
        self._stall_timer: asyncio.TimerHandle | None = None
        self._head_bytes = 0
        self._received = 0
        self._received_before = 0
        self._refusal: ProblemError | None = None
        self._over_cap = False
        self._head_pending = True
        self._request_complete = False

    # Connections

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        open_now = len(self.connections)
        super().connection_made(transport)
        if open_now >= self.limits.max_connections:
            if open_now >= self.limits.max_connections + HEALTH_CONNECTIONS and not self._close_idle_connection():
                transport.abort()
                return
            self._over_cap = not self._close_idle_connection()
        self._expect_head()

    def _close_idle_connection(self) -> bool:
        """Closes one idle connection to make room. Returns False if there is none."""
        for one in self.connections:
            if isinstance(one, LimitedHttpProtocol) and one is not self and one.timeout_keep_alive_task is not None:
                one.timeout_keep_alive_handler()
                self.connections.discard(one)
                return True
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        if self._stall_timer is not None:
            self._stall_timer.cancel()
        super().connection_lost(exc)

    def handle_websocket_upgrade(self) -> None:
        self._stop_timer()
        problem = handshake_problem(self.scope["method"], self.headers)
        if problem is not None:
            self._refuse(problem)
            return
        super().handle_websocket_upgrade()
        # The WebSocket protocol's parser has limits of its own. What it refuses, uvicorn neither answers nor closes.
        if not getattr(self.transport.get_protocol(), "handshake_initiated", True):
            self._refuse(_UNREADABLE_HANDSHAKE)

    # Requests

    def data_received(self, data: bytes) -> None:
        if self._refusal is not None or self.transport.is_closing():
            return
        if self.timeout_keep_alive_task is not None and self._request_complete:  # another request starts
            self._expect_head()
        self._received += len(data)
        super().data_received(data)
        if self._head_pending and self._received - self._received_before > _MAX_HEAD_BYTES:
            # the parser reports a header only once it is complete
            self._refuse(_head_too_large(_TOO_MANY_BYTES))

    def on_message_begin(self) -> None:
        self._head_bytes = 0
        self._request_complete = False
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        self._count_head(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count_head(len(name) + len(value))
        super().on_header(name, value)
        if len(self.headers) > _MAX_HEADERS:
            self._refuse_head(f"has more than {_MAX_HEADERS} headers")

    def _count_head(self, size: int) -> None:
        self._head_bytes += size
        if self._head_bytes > _MAX_HEAD_BYTES:
            self._refuse_head(_TOO_MANY_BYTES)

    def _refuse_head(self, what: str) -> None:
        self._refusal = _head_too_large(what)
        raise _RefusedError  # the parser passes it on as an error of its own

    def on_headers_complete(self) -> None:
        self._stop_timer()
        self._head_pending = False
        if self._over_cap and not self.url.startswith(b"/health/"):
            self._refusal = ProblemError(
                ProblemType.TOO_MANY_CONNECTIONS,
                "This process is at its limit of connections. Send the request again later.",
                retry_after=2,
            )
            raise _RefusedError
        super().on_headers_complete()
        if self.cycle is None or self.cycle.response_complete:
            return
        if self._over_cap:
            self.cycle.keep_alive = False
        if self.scope["http_version"] == "1.0":
            _close_delimited(self.cycle)
        self._received_before = self._received
        self._timer = self.loop.call_later(self.limits.body_idle_seconds, self._check_body)

    def on_message_complete(self) -> None:
        self._stop_timer()
        self._request_complete = True
        super().on_message_complete()
        if self.cycle is not None and self.cycle.response_complete and self.timeout_keep_alive_task is None:
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if not self._request_complete and not self.transport.is_closing():
            # The client still sends its body. If the connection closed now, the client might never read the response.
            self._stop_timer()
            self._timer = self.loop.call_later(_LINGER_SECONDS, self.transport.close)

    def send_400_response(self, msg: str) -> None:
        """Refuses malformed HTTP with a problem."""
        self._refusal = self._refusal or ProblemError(ProblemType.BAD_REQUEST, "The request is not valid HTTP.")
        self._refuse(self._refusal)

    # Timers

    def _expect_head(self) -> None:
        self._stop_timer()
        self._head_pending = True
        self._received_before = self._received
        self._timer = self.loop.call_later(self.limits.head_seconds, self._head_overdue)

    def _head_overdue(self) -> None:
        self._timer = None
        if self._received == self._received_before:
            self.transport.close()  # the client has sent nothing
            return
        seconds = self.limits.head_seconds
        self._refuse(
            ProblemError(ProblemType.REQUEST_TIMEOUT, f"The request's head was not complete after {seconds:g} s.")
        )

    def _check_body(self) -> None:
        """Refuses a body without progress, unless this process itself has paused reading."""
        self._timer = None
        if self.cycle is None or not self.cycle.more_body or self.cycle.response_complete:
            return
        if self._received - self._received_before >= _MIN_PROGRESS or self.flow.read_paused:
            self._received_before = self._received
            self._timer = self.loop.call_later(self.limits.body_idle_seconds, self._check_body)
            return
        seconds = self.limits.body_idle_seconds
        self.cycle.disconnected = True
        self.cycle.message_event.set()
        self._refuse(
            ProblemError(ProblemType.REQUEST_TIMEOUT, f"The request's body made no progress for {seconds:g} s.")
        )

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._stall_timer is None:
            self._stall_timer = self.loop.call_later(self.limits.write_stall_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        if self._stall_timer is not None:
            self._stall_timer.cancel()
            self._stall_timer = None
        super().resume_writing()

    def _refuse(self, problem: ProblemError) -> None:
        """Sends the problem and closes the connection. If a response has started, only closes."""
        self._refusal = problem
        self._stop_timer()
        if self.transport.is_closing():
            return
        if self.cycle is None or self.cycle.response_complete or not self.cycle.response_started:
            response = render(problem, new_request_id())
            head = [STATUS_LINE[response.status_code]]
            for name, value in (*response.raw_headers, (b"connection", b"close")):
                head += [name, b": ", value, b"\r\n"]
            self.transport.write(b"".join(head) + b"\r\n" + bytes(response.body))
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self._timer = self.loop.call_later(_LINGER_SECONDS, self.transport.close)


def _close_delimited(cycle: RequestResponseCycle) -> None:
    """Sends without chunked encoding: in HTTP/1.0 a body without a length ends with the connection."""
    send = cycle.send

    async def send_plain(message: Any) -> None:
        if message["type"] == "http.response.start":
            names = {name.lower() for name, _ in message.get("headers", [])}
            if b"content-length" not in names:
                cycle.chunked_encoding = False
        elif cycle.chunked_encoding is False and not cycle.expected_content_length:
            cycle.expected_content_length = len(message.get("body", b""))
        await send(message)

    cycle.send = send_plain  # type: ignore[method-assign]
