"""The types that all rooms share: requests, events, workflow inputs and results, configuration, errors.

They import no other room, do no I/O, and need pydantic and jsonschema-rs alone.
"""
