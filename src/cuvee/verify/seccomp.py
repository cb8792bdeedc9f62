"""The system-call filter of the sandbox: a program may start threads, but no processes.

RLIMIT_NPROC does not hold where cuvee runs as root, and without a limit a fork bomb takes the
machine's memory before its deadline. Bytes out, for bubblewrap's `--seccomp`. Not here: what
else a program may not do; the sandbox's namespaces see to files, network and privileges.
"""

import errno
import platform
import struct

# Linux's <linux/audit.h> architecture and <asm/unistd.h> numbers:
# (architecture, clone, clone3, (unshare, fork, vfork)); aarch64 has no fork of its own.
_NUMBERS = {
    "x86_64": (0xC000003E, 56, 435, (272, 57, 58)),
    "aarch64": (0xC00000B7, 220, 435, (97,)),
}
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06  # classic BPF
_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_NR_OFFSET, _ARCH_OFFSET, _FIRST_ARGUMENT_OFFSET = 0, 4, 16  # in struct seccomp_data
_CLONE_THREAD = 0x00010000
_X32_BIT = 0x40000000


def no_processes() -> bytes | None:
    """Return the filter as a BPF program, or None on a machine it is not written for.

    fork, vfork, unshare and clone without CLONE_THREAD fail with EPERM; clone3, whose flags
    a filter cannot see, with ENOSYS, upon which the C library uses clone. System calls in
    another architecture's numbering kill the program.
    """
    numbers = _NUMBERS.get(platform.machine())
    if numbers is None:
        return None
    architecture, clone, clone3, others = numbers
    denied = _ERRNO | errno.EPERM
    program = [
        (_LOAD, 0, 0, _ARCH_OFFSET),
        (_EQUAL, 1, 0, architecture),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NR_OFFSET),
        *_if(_AT_LEAST, _X32_BIT, denied),
        *_if(_EQUAL, clone3, _ERRNO | errno.ENOSYS),
        *(step for number in others for step in _if(_EQUAL, number, denied)),
        (_EQUAL, 1, 0, clone),
        (_RETURN, 0, 0, _ALLOW),
        (_LOAD, 0, 0, _FIRST_ARGUMENT_OFFSET),
        (_ANY_BIT, 1, 0, _CLONE_THREAD),
        (_RETURN, 0, 0, denied),
        (_RETURN, 0, 0, _ALLOW),
    ]
    return b"".join(struct.pack("<HBBI", *step) for step in program)


def _if(test: int, value: int, result: int) -> list[tuple[int, int, int, int]]:
    """Return the steps that end with `result` where the loaded number passes the test."""
    return [(test, 0, 1, value), (_RETURN, 0, 0, result)]
