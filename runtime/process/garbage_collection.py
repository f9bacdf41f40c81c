"""Tunes Python's garbage collector for a server process."""

import gc


def freeze_gc() -> None:
    """Freezes the loaded modules after start-up, so that collections skip them.

    A full collection over all modules took up to 200 ms under load, during which no chunk was sent
    (docs/decisions/garbage-collection.md, "Pauses").
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(5_000, 20, 50)
