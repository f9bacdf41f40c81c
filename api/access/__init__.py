"""Tenants, their erasure and API keys, for administrators; and run tokens."""
