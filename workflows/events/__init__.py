"""Workflows of events: reactions and their derived events, ordering, the subscription registry, rejected events."""
