"""Events: the one way in for all that arrive by HTTP, from a broker or from an agent.

Matching them to subscriptions, keeping their order, starting reactions, and the live feed of what happens.
"""
