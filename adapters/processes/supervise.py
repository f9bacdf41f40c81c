"""Runs a command whose process group ends with the worker: `python -I -S supervise.py PARENT COMMAND…`.

PR_SET_PDEATHSIG reaches one process only, and a program may ignore SIGTERM. So this process stays beside the program:
when the worker dies, it kills the whole group. It ends as the program ends, by exit code or signal. 127 means that
the program could not be started.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1
NOT_STARTED = 127


def launcher() -> list[str]:
    """Returns the command line to put before a command, for a program of this worker."""
    return [sys.executable, "-I", "-S", __file__, str(os.getpid())]


def main() -> None:
    parent, command = int(sys.argv[1]), sys.argv[2:]

    def end(*_: object) -> None:
        """A SIGTERM is the worker's, for the program, unless the worker has died."""
        if os.getppid() != parent:
            os.killpg(0, signal.SIGKILL)

    signal.signal(signal.SIGTERM, end)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # The worker died before the request.
        sys.exit(1)
    program = os.fork()
    if program == 0:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        try:
            os.execv(command[0], command)  # noqa: S606
        except OSError as error:
            os.write(2, f"{command[0]}: {error.strerror}\n".encode())
            os._exit(NOT_STARTED)
    # Only the program holds what it reads and writes.
    for descriptor in (0, 1, 2):
        os.close(descriptor)
    _, status = os.waitpid(program, 0)
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        if -code != signal.SIGKILL:
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(1 if code < 0 else code)


if __name__ == "__main__":
    main()
