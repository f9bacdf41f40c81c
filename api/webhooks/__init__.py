"""Webhooks over HTTP: the webhook of a request, the list of deliveries, and redelivery."""
