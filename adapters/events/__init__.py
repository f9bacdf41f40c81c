"""Events: the one ingest for events by HTTP, from a broker or from an agent.

Also subscription matching, ordering, starting reactions, and the live feed.
"""
