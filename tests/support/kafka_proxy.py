"""A proxy before librdkafka's Kafka cluster, for what that does not do: TLS, SASL, groups of several members."""

import asyncio
import ssl
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

from scramp import ScramException, ScramMechanism

HOST = b"127.0.0.1"
_SYNC_GROUP, _SASL_HANDSHAKE, _API_VERSIONS, _SASL_AUTHENTICATE = 14, 17, 18, 36
_AUTHENTICATION_FAILED = 58

# The cluster refuses a member that asks for its assignment after the leader has sent all of them.
_LEADER_SECONDS = 1.0


@dataclass
class KafkaProxy:
    """A broker at `url`. `users` have to authenticate by `mechanism`, if it is set. `authenticated` lists who did."""

    upstream: int
    mechanism: str | None
    users: dict[str, str]
    port: int = 0
    authenticated: list[str] = field(default_factory=list)
    has_client_certificate: list[bool] = field(default_factory=list)
    _tasks: set["asyncio.Task[None]"] = field(default_factory=set)
    _writers: list[asyncio.StreamWriter] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"kafka://127.0.0.1:{self.port}"

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if (tls := writer.get_extra_info("ssl_object")) is not None:
            self.has_client_certificate.append(bool(tls.getpeercert()))
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self.upstream)
        self._writers += [writer, up_writer]
        connection = _Connection(self, reader, writer, up_reader, up_writer)
        for work in (connection.pass_requests(), connection.pass_responses()):
            task = asyncio.create_task(work)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for writer in self._writers:
            writer.transport.abort()


@dataclass
class _Connection:
    proxy: KafkaProxy
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    up_reader: asyncio.StreamReader
    up_writer: asyncio.StreamWriter
    versions: dict[int, int] = field(default_factory=dict)  # of requests for versions, by correlation id
    login: "_Login | None" = None

    async def pass_requests(self) -> None:
        is_open = self.proxy.mechanism is None
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                frame = await _read(self.reader)
                key, version, correlation = struct.unpack_from(">hhi", frame)
                body = frame[10 + max(0, struct.unpack_from(">h", frame, 8)[0]) :]
                if key == _API_VERSIONS:
                    self.versions[correlation] = version
                elif not is_open:
                    is_open = await self._authenticate(key, version, correlation, body)
                    continue
                elif key == _SYNC_GROUP and _is_of_leader(version, body):
                    await asyncio.sleep(_LEADER_SECONDS)
                _write(self.up_writer, frame)
        self.up_writer.close()

    async def pass_responses(self) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                frame = await _read(self.up_reader)
                (correlation,) = struct.unpack_from(">i", frame)
                if self.versions.pop(correlation, None) is not None and self.proxy.mechanism is not None:
                    frame = _with_sasl(frame)
                old, new = (HOST + struct.pack(">i", port) for port in (self.proxy.upstream, self.proxy.port))
                _write(self.writer, frame.replace(old, new))
        self.writer.close()

    async def _authenticate(self, key: int, version: int, correlation: int, body: bytes) -> bool:
        mechanism = self.proxy.mechanism or ""
        if key == _SASL_HANDSHAKE:
            self.login = _Login(self.proxy, mechanism)
            _write(self.writer, struct.pack(">ihi", correlation, 0, 1) + _string(mechanism))
            return False
        assert key == _SASL_AUTHENTICATE, f"the request {key} came before authentication"
        assert self.login is not None
        error, answer = 0, b""
        try:
            answer = self.login.step(body[4:])
        except (ScramException, PermissionError):
            error = _AUTHENTICATION_FAILED
        lifetime = struct.pack(">q", 0) if version else b""
        text = _string("the proxy knows no such user and password") if error else struct.pack(">h", -1)
        sized = struct.pack(">i", len(answer)) + answer
        _write(self.writer, struct.pack(">ih", correlation, error) + text + sized + lifetime)
        return self.login.is_done and not error


class _Login:
    """The server's side of PLAIN or SCRAM."""

    def __init__(self, proxy: KafkaProxy, mechanism: str) -> None:
        self._proxy, self.is_done, self._user = proxy, False, ""
        self._scram = None
        if mechanism != "PLAIN":
            made = ScramMechanism(mechanism)
            infos = {user: made.make_auth_info(password) for user, password in proxy.users.items()}

            def find(user: str) -> object:
                self._user = user.replace("=2C", ",").replace("=3D", "=")
                return infos[self._user]

            self._scram = made.make_server(find)
            self._is_first = True

    def step(self, given: bytes) -> bytes:
        if self._scram is None:
            _, user, password = given.decode().split("\0")
            if self._proxy.users.get(user) != password:
                raise PermissionError
            return self._end(user, "")
        if self._is_first:
            self._is_first = False
            self._scram.set_client_first(given.decode())
            return str(self._scram.get_server_first()).encode()
        self._scram.set_client_final(given.decode())
        return self._end(self._user, self._scram.get_server_final())

    def _end(self, user: str, answer: str) -> bytes:
        self.is_done = True
        self._proxy.authenticated.append(user)
        return answer.encode()


def _is_of_leader(version: int, body: bytes) -> bool:
    """Whether a request for an assignment brings those of all members (versions 0 to 3)."""
    at = 2 + struct.unpack_from(">h", body)[0] + 4
    for _ in range(2 if version >= 3 else 1):
        at += 2 + max(0, struct.unpack_from(">h", body, at)[0])
    return bool(struct.unpack_from(">i", body, at)[0])


async def _read(reader: asyncio.StreamReader) -> bytes:
    (size,) = struct.unpack(">i", await reader.readexactly(4))
    return await reader.readexactly(size)


def _write(writer: asyncio.StreamWriter, frame: bytes) -> None:
    writer.write(struct.pack(">i", len(frame)) + frame)


def _string(text: str) -> bytes:
    return struct.pack(">h", len(text)) + text.encode()


def _with_sasl(frame: bytes) -> bytes:
    """Adds the requests for authentication to those that the cluster says it knows (versions 0 to 2 of that)."""
    (count,) = struct.unpack_from(">i", frame, 6)
    end = 10 + 6 * count
    more = struct.pack(">hhhhhh", _SASL_HANDSHAKE, 0, 1, _SASL_AUTHENTICATE, 0, 1)
    return frame[:6] + struct.pack(">i", count + 2) + frame[10:end] + more + frame[end:]


@asynccontextmanager
async def kafka_proxy(
    upstream: str,
    *,
    tls: ssl.SSLContext | None = None,
    mechanism: str | None = None,
    users: dict[str, str] | None = None,
) -> AsyncIterator[KafkaProxy]:
    proxy = KafkaProxy(int(upstream.rpartition(":")[2]), mechanism, users or {})
    server = await asyncio.start_server(proxy.connected, "127.0.0.1", 0, ssl=tls)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
        await proxy.close()
