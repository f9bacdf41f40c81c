"""Quotas of tenants and keys: rates, open runs, stored bytes and budgets; and the usage that budgets are checked
against. All of them ask Temporal, so that several processes hold a quota together.
"""
