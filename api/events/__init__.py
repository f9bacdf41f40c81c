"""Events over HTTP: parsing CloudEvents, EventBridge, the live stream, subscriptions, dead letters, AsyncAPI."""
