"""HTTP for all routes: problems, strict JSON, body limit, request ids, `Prefer`, content negotiation, idempotency,
pagination.
"""
