"""Workflows of webhooks: the delivery with its retries, the updates on a run, a tenant's stored endpoints, and the
health of failing hosts.
"""
