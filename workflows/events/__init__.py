"""Workflows of events: reactions and what they derive, ordering, the subscriptions, rejected events."""
