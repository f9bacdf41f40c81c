"""Activities of the daily payload cleanup and of the erasure of a tenant."""
