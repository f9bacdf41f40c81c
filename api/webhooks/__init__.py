"""Webhooks over HTTP: the webhook of a request, stored endpoints, the list of deliveries, and redelivery."""
