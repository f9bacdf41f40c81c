"""Entity workflows: one workflow per circuit breaker and per agent quota, driven by signals and updates.
`entity_loop.py` is the loop that they share.
"""
