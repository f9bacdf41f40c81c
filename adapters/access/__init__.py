"""Who may come in: API keys, run tokens, access tokens of an OpenID Connect issuer, and the tenants that they belong
to.
"""
