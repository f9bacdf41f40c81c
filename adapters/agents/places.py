"""Places in an agent's code: the last ones of a stack outside of libraries and of Sevenfold."""

import sysconfig
import traceback
from collections.abc import Iterable
from pathlib import Path

import sevenfold

# Where frames are that say nothing about an agent.
_NOT_THE_AGENT = [
    Path(path) for path in (sysconfig.get_path("stdlib"), sysconfig.get_path("purelib"), *sevenfold.__path__)
]


def is_ours(filename: str) -> bool:
    """Whether the file is one of Sevenfold's."""
    return any(map(Path(filename).is_relative_to, sevenfold.__path__))


def find_place(frames: Iterable[traceback.FrameSummary]) -> str:
    """Returns file and line, such as `support.py:31`; empty if no frame is of an agent."""
    own = [frame for frame in frames if not any(map(Path(frame.filename).is_relative_to, _NOT_THE_AGENT))]
    return f"{Path(own[-1].filename).name}:{own[-1].lineno}" if own else ""


def find_error_place(error: BaseException) -> str:
    """Returns where an exception was raised."""
    return find_place(traceback.extract_tb(error.__traceback__))
