"""A run's stream as lines, whatever the transport, and the WebSocket over which it is read."""
