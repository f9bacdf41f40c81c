"""The error that reports why Sevenfold cannot start."""


class StartupError(Exception):
    """Sevenfold cannot start. The message states what is wrong and what to do next; it is printed as it is."""
