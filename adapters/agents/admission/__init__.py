"""Admission control: whether an agent may be called now.

A circuit breaker and a share of the agent's quota per process; the state that all processes share is kept by the
workflows in `workflows/entities/`.
"""
