"""Who sends a request: access tokens of an OpenID Connect issuer."""
