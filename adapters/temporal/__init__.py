"""Reads from Temporal: status and outcome of runs, durations, pollers, search attributes, transient errors."""
