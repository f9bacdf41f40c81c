"""Turns on traces if the standard variables of OpenTelemetry name an endpoint."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sevenfold import __version__
from sevenfold.adapters.tracing import use_tracer
from sevenfold.runtime.startup import StartupError

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")


def _find_endpoint() -> str | None:
    """Returns the variable that names an endpoint; None if there is none, or traces are turned off."""
    if os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true" or os.environ.get("OTEL_TRACES_EXPORTER") == "none":
        return None
    return next((name for name in _ENDPOINTS if os.environ.get(name)), None)


@asynccontextmanager
async def exported_traces() -> AsyncIterator[None]:
    """Exports the spans of this process while the block runs, if an endpoint is configured. Raises StartupError."""
    variable = _find_endpoint()
    if variable is None:
        yield
        return
    # Imported on use: it is an extra, and takes half a second.
    try:
        from sevenfold.adapters.otel import OtelTracer  # noqa: PLC0415

        tracer = OtelTracer(__version__)
    except ModuleNotFoundError as error:
        raise StartupError(
            f"{variable} needs the extra `otel` ({error}): install 'sevenfold[otel]', "
            "from a checkout with: .venv/bin/pip install -e '.[otel]'"
        ) from None
    except ValueError as error:
        raise StartupError(f"{str(error).rstrip('.')}.") from None
    use_tracer(tracer)
    try:
        yield
    finally:
        use_tracer(None)
        await asyncio.to_thread(tracer.close)
