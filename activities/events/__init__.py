"""Activities of events: match subscriptions, start reactions, publish derived events."""
