"""Workflows that stand for a thing and live on signals: an agent's circuit breaker and its quota."""
