"""The HTTP server of a process that does more than serve."""

from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn


class HttpServer(uvicorn.Server):
    """Leaves signals to the command, which stops more than this server."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
