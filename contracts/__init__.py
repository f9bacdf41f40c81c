"""The types that all rooms share: requests, events, workflow inputs and results, configuration, errors.

They import no other room, do no I/O and use no framework but pydantic.
"""
