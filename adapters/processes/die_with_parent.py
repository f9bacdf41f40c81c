"""Runs a command that ends with its parent: `python -I -S die_with_parent.py PARENT_PID COMMAND…`.

A kill -9 of `sevenfold dev` must not leave its Temporal server running, which would hold the ports and the database.
Only Linux supports this (PR_SET_PDEATHSIG survives exec). Elsewhere the command runs without it, and the next start
names the process that holds the port. It is a separate script because Python code between fork and exec
(`preexec_fn`) may deadlock in a process with threads, and ours has Temporal's.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def launcher() -> list[str]:
    """Returns the command line to put before a command, for a child of this process."""
    return [sys.executable, "-I", "-S", __file__, str(os.getpid())]


def main() -> None:
    parent, command = int(sys.argv[1]), sys.argv[2:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # The parent died before the request.
            sys.exit(1)
    os.execv(command[0], command)  # noqa: S606


if __name__ == "__main__":
    main()
