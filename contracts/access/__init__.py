"""Tenants, API keys, scopes and quotas."""
