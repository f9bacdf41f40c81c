"""Events over HTTP: reading CloudEvents, EventBridge, the live stream, subscriptions, dead letters, AsyncAPI."""
