"""Runs a command that ends when its parent does: `python -I -S die_with_parent.py PARENT_PID COMMAND…`.

A kill -9 of `sevenfold dev` must not leave its Temporal server behind, holding the ports and the database.
Only Linux can ask for that (PR_SET_PDEATHSIG survives exec); elsewhere the command is simply run, and the next
start names the process that holds the port. A script of its own, since running Python between fork and exec
(`preexec_fn`) may deadlock in a process that has threads, and ours has Temporal's.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    parent, command = int(sys.argv[1]), sys.argv[2:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it died before we could ask
            sys.exit(1)
    os.execv(command[0], command)  # noqa: S606


if __name__ == "__main__":
    main()
