"""Settings of all streaming responses."""

# How soon a browser reconnects, in milliseconds.
RETRY_MILLISECONDS = 2_000

# Proxies close connections that are silent for about 16 s.
HEARTBEAT_SECONDS = 8.0

# Proxies must neither buffer nor compress a stream.
STREAM_HEADERS = {"Cache-Control": "no-cache, no-transform", "X-Accel-Buffering": "no"}
