"""What every route shares: problems, strict JSON, body limit, request ids, `Prefer`, content negotiation,
idempotency, pagination.
"""
