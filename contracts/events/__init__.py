"""Events: CloudEvents and the envelopes of other senders, filters, subscriptions, and the workflows of pattern 3."""
