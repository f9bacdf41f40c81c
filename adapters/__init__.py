"""Adapters: clients of external systems, one folder per kind of system.

They know the types in `contracts/` and the libraries of their systems, but no HTTP routes, workflows or settings.
"""
