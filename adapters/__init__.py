"""Adapters: what plugs into the outside world, one folder per kind of peer.

They know the types in `contracts/` and the libraries of their peers, and nothing of HTTP routes, workflows or
settings.
"""
