"""A server of the benchmark's own, in a process of its own: `python -m <module> PORT`."""

import contextlib
import sys
from collections.abc import AsyncIterator
from pathlib import Path

from bench.http_load import HttpClient
from bench.ports import free_ports
from bench.processes import REPOSITORY, Child, until


@contextlib.asynccontextmanager
async def served(module: str, work: Path, ready: str, seconds: float) -> AsyncIterator[HttpClient]:
    """A client of the server, once its path `ready` answers within so many seconds; stopped at the end."""
    (port,) = free_ports(1)
    child = Child([sys.executable, "-m", module, str(port)], log=work / f"{module}-{port}.log", cwd=REPOSITORY)
    connection = HttpClient(port)
    try:
        await until(lambda: connection.get(ready), seconds, module, child)
        yield connection
    finally:
        await connection.close()
        await child.stop()
