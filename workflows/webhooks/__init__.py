"""Workflows of webhooks: the delivery with its retries, and the health of failing endpoints."""
