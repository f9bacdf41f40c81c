"""The schema of `sevenfold.toml`."""
