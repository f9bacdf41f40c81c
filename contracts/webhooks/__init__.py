"""Webhooks: the delivery and the log of its attempts, and the stored endpoints of a tenant."""
