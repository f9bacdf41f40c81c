"""For those who operate it: health, statistics, the agents' state, and which pattern fits."""
