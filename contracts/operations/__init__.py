"""Readiness, the payload cleanup, and the erasure of a tenant."""
