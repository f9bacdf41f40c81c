"""`python -m bench.pollers PORT TASK COUNT`: so many long-pollers of one task, in a process of their own.

Each has one connection and comes back with `If-None-Match` as soon as it is answered, until the task has ended.
Prints one JSON list of `[moment, status, note]`, one for every change that a poller received. A protocol instead of
streams, and one pass over the bytes: five hundred answers come at the same moment, and the time that this process
takes for them would stand in the figure.
"""

import asyncio
import json
import sys
import time

WAIT = 30
LIMIT = 60.0

Sight = tuple[float, str, str]


class Poller(asyncio.Protocol):
    """One client that polls. `ended` resolves at the end of the run, or fails with what went wrong."""

    def __init__(self, task: str, sights: list[Sight]) -> None:
        """Poll `task` and put what is seen into `sights`."""
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._head = f"GET /api/agent/tasks/{task}?wait={WAIT} HTTP/1.1\r\nHost: 127.0.0.1\r\n".encode()
        self._sights = sights
        self._received = b""
        self._transport: asyncio.WriteTransport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask for the first time."""
        assert isinstance(transport, asyncio.WriteTransport)  # noqa: S101
        self._transport = transport
        self._transport.write(self._head + b"\r\n")

    def data_received(self, data: bytes) -> None:
        """Record the answer once it is complete, and poll again."""
        now = time.time()
        self._received += data
        head, end, body = self._received.partition(b"\r\n\r\n")
        if not end:
            return
        lines = head.lower().split(b"\r\n")
        fields = {name: value.strip() for name, _, value in (line.partition(b":") for line in lines[1:])}
        status = lines[0].split(b" ", 2)[1]
        if status != b"304" and len(body) < int(fields[b"content-length"]):
            return
        self._received = b""
        if status not in (b"200", b"304"):
            self._end(RuntimeError(f"a poller was answered {head + end + body!r}"))
            return
        if status == b"200":
            state = json.loads(body)
            self._sights.append((now, state["status"], state.get("note", "")))
            if state["status"] != "processing" and state["status"] != "queued":
                self._end(None)
                return
        self._transport.write(self._head + b"If-None-Match: " + fields[b"etag"] + b"\r\n\r\n")

    def connection_lost(self, error: Exception | None) -> None:
        """Fail unless the end was received before."""
        self._end(error or ConnectionResetError("a poller's connection was closed"))

    def _end(self, error: Exception | None) -> None:
        if self.ended.done():
            return
        if error:
            self.ended.set_exception(error)
        else:
            self.ended.set_result(None)
        self._transport.close()


async def _poll(port: int, task: str, count: int) -> list[Sight]:
    loop = asyncio.get_running_loop()
    sights: list[Sight] = []
    pollers: list[Poller] = []
    for _ in range(count):
        _, poller = await loop.create_connection(lambda: Poller(task, sights), "127.0.0.1", port)
        pollers.append(poller)
    async with asyncio.timeout(LIMIT):
        await asyncio.gather(*(poller.ended for poller in pollers))
    return sights


if __name__ == "__main__":
    print(json.dumps(asyncio.run(_poll(int(sys.argv[1]), sys.argv[2], int(sys.argv[3])))))
