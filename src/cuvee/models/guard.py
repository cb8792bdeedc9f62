"""Become a command that dies with the process that asked for it, even on `kill -9`.

`python -m cuvee.models.guard PARENT SIGNAL COMMAND...` asks the kernel to send SIGNAL when
the parent ends, then turns into COMMAND: same process id, same open files. Linux only.
Trap: the kernel means the parent's *thread*; start engines from one that lives on.
"""

import ctypes
import os
import sys

_PR_SET_PDEATHSIG = 1
_PARENT_IS_GONE = 3
_NOT_EXECUTABLE = 127


def main(arguments: list[str]) -> int:
    """Turn into the command; return an exit code only where that could not be."""
    parent, death_signal, command = int(arguments[0]), int(arguments[1]), arguments[2:]
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, death_signal, 0, 0, 0) != 0:
        print(f"prctl(PR_SET_PDEATHSIG): {os.strerror(ctypes.get_errno())}", file=sys.stderr)
        return 1
    if os.getppid() != parent:  # it died before the kernel was asked
        return _PARENT_IS_GONE
    try:
        os.execvp(command[0], command)
    except OSError as error:
        print(f"{command[0]}: {error.strerror}", file=sys.stderr)
    return _NOT_EXECUTABLE


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
