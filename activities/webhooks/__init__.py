"""Activities of webhooks: make one delivery attempt, and report an endpoint that fails or has recovered."""
