"""For operators: health, statistics, the state of agents, and the recommendation of a pattern."""
