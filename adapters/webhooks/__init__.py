"""Webhooks: one signed POST, and the sealing of the secrets that sign it."""
