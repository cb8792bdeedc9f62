"""Gives one program namespaces of its own: processes, users, files, System V objects.

It runs inside the sandbox, in a server that forks, and imports the standard library only. A
process with one user and no rights in, the first process of new namespaces with an empty
/tmp, /dev/shm and /proc out. Not here: the network and what files there are at all, which
bubblewrap sees to around the server.
"""

import ctypes
import os
import platform
import signal
import struct

TMP_BYTES = 64 * 2**20
_TMP_FILES = 16384
_NEW = 0x20000000 | 0x10000000 | 0x08000000 | 0x00020000  # new pid, user, ipc, mount
_CLONE = {"x86_64": 56, "aarch64": 220}
_NOSUID, _NODEV, _NOEXEC, _RDONLY = 2, 4, 8, 1  # of <sys/mount.h>
_DETACH = 2
_PR_SET_DUMPABLE = 4
_CAPABILITY_VERSION_3 = 0x20080522
# bubblewrap lays these over themselves where it runs as root. A /proc under another mount
# may not be mounted again in a namespace of its own.
_COVERED = (b"/proc/sys", b"/proc/sysrq-trigger", b"/proc/irq", b"/proc/bus")

# PyDLL: the call keeps Python's lock, which a process that is made here must hold.
_LIBC = ctypes.PyDLL(None, use_errno=True)
# Looked up here: once, and not in every program.
_prctl, _capset, _mount_call = _LIBC.prctl, _LIBC.capset, _LIBC.mount


def become(user: int) -> None:
    """Give up root's rights for good, and uncover /proc while there is the right to.

    Does nothing for a process that is not root. Raises OSError where it cannot.
    """
    if os.getuid() != 0:
        return
    for path in _COVERED:
        _LIBC.umount2(path, _DETACH)  # fails where nothing is laid over it
    os.setgroups([])
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)


def fork_into_new() -> int:
    """Fork; return 0 in the child, which is process 1 of new namespaces with all rights there.

    Raises OSError, in the parent alone, where the kernel refuses.
    """
    arguments = (_CLONE[platform.machine()], _NEW | signal.SIGCHLD, 0, 0, 0, 0)
    pid: int = _LIBC.syscall(*(ctypes.c_long(argument) for argument in arguments))
    if pid < 0:
        raise _error("new namespaces")
    return pid


def name_user(user: int) -> None:
    """In new namespaces, be this user and group, as before; there are no others there.

    The process must be readable, or its own /proc/self is closed to it.
    """
    _write("/proc/self/setgroups", "deny")
    _write("/proc/self/uid_map", f"{user} {user} 1")
    _write("/proc/self/gid_map", f"{user} {user} 1")


def mount_own_folders() -> None:
    """Lay an empty /tmp and /dev/shm, each capped, and these processes' /proc over the old."""
    size = f"size={TMP_BYTES},nr_inodes={_TMP_FILES},mode=1777".encode()
    _mount(b"tmpfs", b"/tmp", _NOSUID | _NODEV, size)
    _mount(b"tmpfs", b"/dev/shm", _NOSUID | _NODEV, size)
    # Read only and without /proc/sys, which would obey a process whose user is root outside.
    _mount(b"proc", b"/proc", _NOSUID | _NODEV | _NOEXEC | _RDONLY, b"subset=pid")


def set_readable(readable: bool) -> None:  # noqa: FBT001 - its only argument
    """Let processes of the same user read this one's memory and descriptors, or not."""
    if _prctl(_PR_SET_DUMPABLE, int(readable), 0, 0, 0) != 0:
        raise _error("prctl")


def drop_rights() -> None:
    """Give up every capability for good."""
    header = struct.pack("=Ii", _CAPABILITY_VERSION_3, 0)
    if _capset(header, bytes(24)) != 0:
        raise _error("capset")


def _mount(kind: bytes, place: bytes, flags: int, options: bytes) -> None:
    if _mount_call(kind, place, kind, ctypes.c_ulong(flags), options) != 0:
        raise _error(f"mount {place.decode()}")


def _write(path: str, text: str) -> None:
    number = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(number, text.encode())
    finally:
        os.close(number)


def _error(what: str) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, f"{what}: {os.strerror(number)}")
