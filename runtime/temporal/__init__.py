"""Temporal: connection, SDK runtime, converter, payload store, workers, namespace, schedules, embedded server."""
