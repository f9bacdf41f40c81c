"""HTTP for all routes.

- requests: strict JSON, body limit, request ids, `Prefer`, content negotiation, idempotency, pagination
- responses: problems, quotas, server-sent events
- who may send them: authentication, authorization, host and origin checks, CORS
- connections: limits, TLS handshakes, WebSockets, uvicorn's protocol
"""
