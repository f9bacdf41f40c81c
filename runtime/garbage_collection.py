"""Python's garbage collector, set for a process that serves."""

import gc


def freeze_gc() -> None:
    """Called once everything is loaded, which then stays and is not searched for garbage any more.

    A full collection over all modules took up to 200 ms under load, in which nobody's chunk went out
    (docs/decisions/garbage-collection.md, "Pauses").
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(5_000, 20, 50)
