"""Workflows of operation: the daily payload cleanup, and the erasure of a tenant."""
