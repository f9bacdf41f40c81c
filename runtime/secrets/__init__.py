"""Keys from the environment: the one that seals secrets, those that encrypt histories, the TLS certificate."""
