"""Messages of brokers that are not CloudEvents: how they are mapped to events, and events to them."""
