"""What keeps Sevenfold from starting, said to the person who started it."""


class StartupError(Exception):
    """A reason not to start. The message says what is wrong and what to do next; it is printed as it is."""
