"""A run's stream: opening it, its lines for every transport, and the WebSocket."""
