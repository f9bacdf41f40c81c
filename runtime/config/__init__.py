"""Settings of the environment and the configuration file, and errors in them with their line."""
