"""Shuts a process off from the file system by Landlock, with no rights and no namespaces.

It runs inside the sandbox, just before the program, and imports the standard library only.
Folders that may be read in, a process that can open nothing else out. Where the kernel
knows it, TCP and signals and abstract sockets to others are refused too. Not here: what
Landlock does not see (metadata of files, UDP, memory), which the filter of
`cuvee.verify.sandbox.seccomp` refuses.
"""

import ctypes
import os
import struct
from collections.abc import Iterable

_LIBC = ctypes.CDLL(None, use_errno=True)

# The same numbers on every architecture; layouts and bits from <linux/landlock.h>.
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_VERSION, _PATH_BENEATH = 1, 1
_WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 1, 1 << 2, 1 << 3
_REMOVE_DIR, _REMOVE_FILE, _MAKE_DIR, _MAKE_REG, _TRUNCATE = 1 << 4, 1 << 5, 1 << 7, 1 << 8, 1 << 14
_IN_THE_FOLDER = (
    _WRITE_FILE | _READ_FILE | _READ_DIR | _REMOVE_DIR | _REMOVE_FILE | _MAKE_DIR | _MAKE_REG
    | _TRUNCATE
)  # fmt: skip
_FILE_RIGHTS_OF_VERSION = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}  # how many of the lowest bits
_NET_RIGHTS, _NET_VERSION = 0b11, 4  # to bind and to connect TCP
_SCOPES, _SCOPE_VERSION = 0b11, 6  # abstract sockets, signals
_PR_SET_NO_NEW_PRIVS = 38


def version() -> int:
    """Return the kernel's Landlock version, at least 1. Raises OSError where it has none."""
    return _call(_CREATE_RULESET, None, 0, _VERSION)


def restrict(*, readable: Iterable[str], devices: Iterable[str], folder: str) -> None:
    """Let this process open nothing from now on but what is named.

    `readable`: files and folders, to read with all that is in them; `devices`: files to read
    and write; `folder`: where it may make, write and remove plain files and folders. What
    does not exist is left out. Raises OSError where the kernel refuses.
    """
    known = version()
    files = (1 << _FILE_RIGHTS_OF_VERSION[min(known, max(_FILE_RIGHTS_OF_VERSION))]) - 1
    rules = struct.pack(
        "=QQQ",
        files,
        _NET_RIGHTS if known >= _NET_VERSION else 0,
        _SCOPES if known >= _SCOPE_VERSION else 0,
    )
    size = 24 if known >= _SCOPE_VERSION else 16 if known >= _NET_VERSION else 8
    ruleset = _call(_CREATE_RULESET, rules, size, 0)
    try:
        for path in readable:
            listing = _READ_DIR if os.path.isdir(path) else 0  # noqa: PTH112 - pathlib is slow
            _allow(ruleset, path, _READ_FILE | listing)
        for path in devices:
            _allow(ruleset, path, _READ_FILE | _WRITE_FILE)
        _allow(ruleset, folder, _IN_THE_FOLDER & files)
        if _LIBC.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "prctl: no_new_privs is refused")
        _call(_RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)


def _allow(ruleset: int, path: str, rights: int) -> None:
    try:
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        _call(_ADD_RULE, ruleset, _PATH_BENEATH, struct.pack("=Qi", rights, place), 0)
    finally:
        os.close(place)


def _call(number: int, *arguments: int | bytes | None) -> int:
    passed = [ctypes.c_long(one) if isinstance(one, int) else one for one in arguments]
    result: int = _LIBC.syscall(ctypes.c_long(number), *passed)
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, f"Landlock (system call {number}): {os.strerror(error)}")
    return result
