"""Admission control: whether an agent may be called now.

Each process has a circuit breaker and a quota lease per agent; the workflows in `workflows/entities/` hold the state
that all processes share.
"""
