"""Webhooks over HTTP: how a start names one, the log of deliveries, and redelivery."""
