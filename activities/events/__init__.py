"""Activities of events: find the subscriptions that an event matches, start their reactions, publish what these
derive.
"""
