"""Entity workflows, driven by signals and updates: one per circuit breaker, per limited agent, tenant or key, and per
tenant and month of usage; and the registry of tenants and keys. `entity_loop.py` is the loop of those that end when
nobody needs them.
"""
