"""Activities: the side effects that workflows request.

Temporal retries them, so each may run more than once. Each is a method of a class whose clients `worker.py` injects.
The folders follow those of `workflows/`; shared helpers are at the top level.
"""
