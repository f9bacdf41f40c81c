"""Agents: the interface that they implement, their configuration, errors, steps, questions, limits and usage."""
