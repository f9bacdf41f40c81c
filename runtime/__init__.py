"""Wiring: settings, configuration file, logs, the Temporal client, the embedded server, start and stop of a process.

Only the composition roots (`cli/`, `api/app.py`, `api/components.py`, `worker.py`, `connector.py`) import it.
"""
