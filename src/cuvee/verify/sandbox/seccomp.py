"""The system-call filter that every isolated program runs under.

It closes what namespaces and Landlock leave open: starting processes, sockets, tracing and
signalling others, memory that no limit counts, and the parts of the kernel that programs of
a judge never need. A process id in, a filter in the kernel's classic BPF out, and put in
force. It runs inside the sandbox and imports the standard library only. Not here: files
(the namespaces, or Landlock), how much a program may use (limits).
"""

import ctypes
import errno
import os
import platform
import struct
from collections.abc import Iterable, Sequence
from typing import NamedTuple

_prctl = ctypes.CDLL(None, use_errno=True).prctl  # looked up once, and not in every program

Step = tuple[int, int, int, int]

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06  # classic BPF
_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_REFUSE = _ERRNO | errno.EPERM
_NR_OFFSET, _ARCH_OFFSET, _ARGUMENTS_OFFSET = 0, 4, 16  # in struct seccomp_data
_CLONE_THREAD = 0x00010000
_X32_BIT = 0x40000000
_NEWER = 453
"""System calls from this number on are answered as by an older kernel: nobody has read them."""
_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 38, 22, 2

ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
"""Machines the filter is written for, and what <linux/audit.h> calls them."""

# <asm/unistd.h> of x86_64 and of aarch64; None where there is no such call.
_REFUSED = {
    # processes, and other processes' memory, descriptors and signals
    "fork": (57, None), "vfork": (58, None), "unshare": (272, 97), "setns": (308, 268),
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271),
    "process_madvise": (440, 440), "process_mrelease": (448, 448), "kcmp": (312, 272),
    "pidfd_getfd": (438, 438), "pidfd_send_signal": (424, 424), "tkill": (200, 130),
    "move_pages": (279, 239), "migrate_pages": (256, 238), "ioprio_set": (251, 30),
    # sockets, but for connected pairs; sendmsg could name another's address
    "socket": (41, 198), "connect": (42, 203), "bind": (49, 200), "listen": (50, 201),
    "accept": (43, 202), "accept4": (288, 242), "sendmsg": (46, 211), "sendmmsg": (307, 269),
    # memory that RLIMIT_AS does not count, and what would outlive the program
    "memfd_create": (319, 279), "memfd_secret": (447, 447),
    "shmget": (29, 194), "shmat": (30, 196), "shmctl": (31, 195), "semget": (64, 190),
    "semop": (65, 193), "semctl": (66, 191), "semtimedop": (220, 192), "msgget": (68, 186),
    "msgsnd": (69, 189), "msgrcv": (70, 188), "msgctl": (71, 187), "mq_open": (240, 180),
    "add_key": (248, 217), "request_key": (249, 218), "keyctl": (250, 219),
    # the file tree
    "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41), "chroot": (161, 51),
    "open_tree": (428, 428), "move_mount": (429, 429), "fsopen": (430, 430),
    "fsconfig": (431, 431), "fsmount": (432, 432), "fspick": (433, 433),
    "mount_setattr": (442, 442), "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265), "fanotify_init": (300, 262), "quotactl": (179, 60),
    "quotactl_fd": (443, 443), "swapon": (167, 224), "swapoff": (168, 225), "acct": (163, 89),
    # the kernel itself
    "bpf": (321, 280), "perf_event_open": (298, 241), "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425), "io_uring_enter": (426, 426), "io_uring_register": (427, 427),
    "init_module": (175, 105), "finit_module": (313, 273), "delete_module": (176, 106),
    "kexec_load": (246, 104), "kexec_file_load": (320, 294), "reboot": (169, 142),
    "syslog": (103, 116), "sethostname": (170, 161), "setdomainname": (171, 162),
    "settimeofday": (164, 170), "clock_settime": (227, 112), "adjtimex": (159, 171),
    "clock_adjtime": (305, 266), "personality": (135, 92), "vhangup": (153, 58),
    "lookup_dcookie": (212, 18), "modify_ldt": (154, None), "iopl": (172, None),
    "ioperm": (173, None), "uselib": (134, None),
}  # fmt: skip

# What Landlock does not see: owners may change and watch these of any file they can name.
_REFUSED_METADATA = {
    "chmod": (90, None), "fchmod": (91, 52), "fchmodat": (268, 53), "fchmodat2": (452, 452),
    "chown": (92, None), "fchown": (93, 55), "lchown": (94, None), "fchownat": (260, 54),
    "setxattr": (188, 5), "lsetxattr": (189, 6), "fsetxattr": (190, 7),
    "removexattr": (197, 14), "lremovexattr": (198, 15), "fremovexattr": (199, 16),
    "utime": (132, None), "utimes": (235, None), "futimesat": (261, None),
    "utimensat": (280, 88), "truncate": (76, 45), "flock": (73, 32),
    "inotify_init": (253, None), "inotify_init1": (294, 26), "inotify_add_watch": (254, 27),
}  # fmt: skip

# Calls that name a process, and in which argument; only oneself is allowed.
_OF_A_PROCESS = {
    "kill": (62, 129, 0), "tgkill": (234, 131, 0), "rt_sigqueueinfo": (129, 138, 0),
    "rt_tgsigqueueinfo": (297, 240, 0), "prlimit64": (302, 261, 0),
    "sched_setaffinity": (203, 122, 0), "sched_setscheduler": (144, 119, 0),
    "sched_setparam": (142, 118, 0), "sched_setattr": (314, 274, 0), "setpriority": (141, 140, 1),
}  # fmt: skip

# Calls with a command, in which argument, and the commands that are refused: a signal of
# one's choice to a process of one's choice through a descriptor (F_SETOWN, F_SETSIG,
# F_SETOWN_EX, FIOSETOWN, SIOCSPGRP), flags of files (FS_IOC_SETFLAGS, FS_IOC_FSSETXATTR),
# typing into a terminal (TIOCSTI, TIOCLINUX), outliving one's parent (PR_SET_PDEATHSIG).
_COMMANDS = {
    "fcntl": (72, 25, 1, (8, 10, 15)),
    "ioctl": (16, 29, 1, (0x8901, 0x8902, 0x40086602, 0x401C5820, 0x5412, 0x541C)),
    "prctl": (157, 167, 0, (1,)),
}
_CLONE, _CLONE3, _SENDTO, _SENDTO_ADDRESS = (56, 220), (435, 435), (44, 206), 4


def program_filter(pid: int, *, metadata: bool) -> bytes:
    """Return the filter for the program with this process id (of its own namespace).

    `metadata`: whether it may watch files and change their modes, owners and times. Refused
    calls fail with EPERM, clone without CLONE_THREAD too: threads are all a program can
    start. clone3, whose flags a filter cannot see, fails with ENOSYS, upon which the C
    library uses clone. Calls in another architecture's numbering kill the program. Raises
    OSError on a machine it is not written for.
    """
    machine = platform.machine()
    if machine not in ARCHITECTURES:
        raise OSError(errno.ENOSYS, f"no system-call filter for {machine}")
    column = list(ARCHITECTURES).index(machine)
    refused = _REFUSED if metadata else {**_REFUSED, **_REFUSED_METADATA}
    missing = _ERRNO | errno.ENOSYS
    steps: list[Step] = [
        (_LOAD, 0, 0, _ARCH_OFFSET),
        (_EQUAL, 1, 0, ARCHITECTURES[machine]),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NR_OFFSET),
        *_if(_AT_LEAST, _X32_BIT, [(_RETURN, 0, 0, _REFUSE)]),
        *_if(_AT_LEAST, _NEWER, [(_RETURN, 0, 0, missing)]),
        *_if(_EQUAL, _CLONE3[column], [(_RETURN, 0, 0, missing)]),
    ]
    for numbers in refused.values():
        if (number := numbers[column]) is not None:
            steps += _if(_EQUAL, number, [(_RETURN, 0, 0, _REFUSE)])
    for *calls, argument in _OF_A_PROCESS.values():
        steps += _if(_EQUAL, calls[column], _allow_only(argument, (0, pid)))
    for x86, arm, argument, commands in _COMMANDS.values():
        steps += _if(_EQUAL, (x86, arm)[column], _refuse_only(argument, commands))
    steps += _if(_EQUAL, _SENDTO[column], _allow_null(_SENDTO_ADDRESS))
    steps += _if(_EQUAL, _CLONE[column], _allow_bit(0, _CLONE_THREAD))
    steps.append((_RETURN, 0, 0, _ALLOW))
    return b"".join(struct.pack("<HBBI", *step) for step in steps)


class Filter(NamedTuple):
    """A filter as the kernel takes it: made once, before a process that it is for is forked."""

    text: "ctypes.Array[ctypes.c_char]"
    where: "ctypes.Array[ctypes.c_char]"
    """struct sock_fprog: the number of instructions, then (aligned) where they are."""


def prepared(program: bytes) -> Filter:
    """Return a filter ready to be enforced."""
    text = ctypes.create_string_buffer(program, len(program))
    place = struct.pack("@HP", len(program) // 8, ctypes.addressof(text))
    return Filter(text, ctypes.create_string_buffer(place))


def enforce(wanted: Filter) -> None:
    """Put a filter in force for this thread, for good. Raises OSError where the kernel refuses."""
    where = ctypes.addressof(wanted.where)
    for call in (
        (_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0),
        (_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, where, 0, 0),
    ):
        if _prctl(*map(ctypes.c_ulong, call)) != 0:
            number = ctypes.get_errno()
            raise OSError(number, f"prctl({call[0]}): {os.strerror(number)}")


def _if(test: int, value: int, then: Sequence[Step]) -> list[Step]:
    """Return the steps that do `then`, which must return, where the loaded number passes."""
    return [(test, 0, len(then), value), *then]


def _argument(index: int, *, high: bool = False) -> Step:
    """Load one half of an argument: a filter sees 32 bits at a time."""
    return (_LOAD, 0, 0, _ARGUMENTS_OFFSET + 8 * index + 4 * high)


def _allow_only(index: int, values: Iterable[int]) -> list[Step]:
    tests = [_if(_EQUAL, value, [(_RETURN, 0, 0, _ALLOW)]) for value in values]
    return [_argument(index), *(step for test in tests for step in test), (_RETURN, 0, 0, _REFUSE)]


def _refuse_only(index: int, values: Iterable[int]) -> list[Step]:
    tests = [_if(_EQUAL, value, [(_RETURN, 0, 0, _REFUSE)]) for value in values]
    return [_argument(index), *(step for test in tests for step in test), (_RETURN, 0, 0, _ALLOW)]


def _allow_null(index: int) -> list[Step]:
    return [
        _argument(index),
        (_EQUAL, 1, 0, 0),
        (_RETURN, 0, 0, _REFUSE),
        _argument(index, high=True),
        *_if(_EQUAL, 0, [(_RETURN, 0, 0, _ALLOW)]),
        (_RETURN, 0, 0, _REFUSE),
    ]


def _allow_bit(index: int, bit: int) -> list[Step]:
    return [
        _argument(index),
        (_ANY_BIT, 1, 0, bit),
        (_RETURN, 0, 0, _REFUSE),
        (_RETURN, 0, 0, _ALLOW),
    ]
