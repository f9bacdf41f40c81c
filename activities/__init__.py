"""Activities: the side effects that a workflow may ask for.

Temporal retries them, so each may run more than once. Each is a method of a class whose clients `worker.py` injects;
the folders follow those of `workflows/`. At the top stands what all of them share, and the daily cleanup of
payloads.
"""
