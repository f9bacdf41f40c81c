"""What all answers have in common that go on and on."""

# How soon a browser comes back by itself, in milliseconds.
RETRY_MILLISECONDS = 2_000

# Proxies cut what is silent for about 16 s.
HEARTBEAT_SECONDS = 8.0

# Proxies must neither keep a stream to themselves nor compress it.
STREAM_HEADERS = {"Cache-Control": "no-cache, no-transform", "X-Accel-Buffering": "no"}
