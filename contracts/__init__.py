"""The types that all rooms speak: requests, events, workflow inputs and results, configuration, errors.

They import nothing of ours, do no I/O and know no framework but pydantic.
"""
