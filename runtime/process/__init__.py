"""A process: logs and traces, ports, the data directory, the event loop, graceful stop."""
