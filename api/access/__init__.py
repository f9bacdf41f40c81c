"""Tenants and API keys, for administrators; and run tokens."""
