"""`python -m bench.without_metrics dev`: Sevenfold with the same lines of code and without metrics, for comparison.

Metrics have no switch. Here the library's do nothing, and Temporal's SDK collects none.
"""

from typing import Any

import prometheus_client
from temporalio import runtime


class _Nothing:
    """Stands in for a counter, a gauge and a histogram."""

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def labels(self, *_: Any, **__: Any) -> "_Nothing":
        return self

    def inc(self, *_: Any) -> None:
        pass

    dec = set = observe = clear = inc

    def time(self) -> "_Nothing":
        return self

    track_inprogress = time

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: Any) -> None:
        pass


def main() -> None:
    """Run the command line."""
    for name in ("Counter", "Gauge", "Histogram"):
        setattr(prometheus_client, name, _Nothing)
    with_metrics = runtime.TelemetryConfig
    runtime.TelemetryConfig = lambda **_: with_metrics()  # type: ignore[misc, assignment]
    from sevenfold.cli.main import main as run  # noqa: PLC0415  (it imports what was replaced above)

    run()


if __name__ == "__main__":
    main()
