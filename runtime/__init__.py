"""Wiring: settings, configuration file, logs, the Temporal client, the embedded server, how a process starts and
stops.

Only the composition roots (`cli/`, `api/app.py`, `worker.py`, `connector.py`) import it.
"""
