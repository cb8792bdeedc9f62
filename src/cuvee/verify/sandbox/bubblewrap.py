"""The bubblewrap command that the warm server lives in: what it sees of the machine.

No network, no other processes, no files but Python's own and the C library, read only. A
program that it forks cannot have more. Descriptors and a command in, a command line out.
Not here: what each program is denied besides (`cuvee.verify.sandbox.server`).
"""

import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from cuvee.verify.sandbox.namespaces import TMP_BYTES
from cuvee.verify.sandbox.server import UNPRIVILEGED

_SYS_ADMIN = 21
_TMPFS = ("--perms", "1777", "--size", str(TMP_BYTES), "--tmpfs")
_SWITCHES = (
    ("kernel/apparmor_restrict_unprivileged_userns", "1", "0"),
    ("kernel/unprivileged_userns_clone", "0", "1"),
    ("user/max_user_namespaces", "0", "16384"),
)
"""Files below /proc/sys, what forbids user namespaces there, and what allows them."""
_DEVICES = ("null", "zero", "full", "random", "urandom")


def command(inner: Sequence[str], *, environment: dict[str, str], namespaces: bool) -> list[str]:
    """Return the command that runs `inner` in bubblewrap.

    `namespaces`: whether it makes namespaces of its own, for which it must write to /proc. As
    root, `inner` begins with root's rights and changes to an unprivileged user: a user mapped
    from root is root to the machine's limits on processes, and to /proc/sys.
    """
    user = str(UNPRIVILEGED)
    if _may_administrate():
        rights = ["--cap-add", "ALL"]
    else:
        rights = ["--unshare-user", "--uid", user, "--gid", user]
    return [
        shutil.which("bwrap") or "bwrap",
        *rights,
        "--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts",
        "--unshare-cgroup-try", "--hostname", "sandbox", "--die-with-parent", "--new-session",
        "--clearenv",
        *(word for name, value in environment.items() for word in ("--setenv", name, value)),
        "--proc", "/proc", *([] if namespaces else ["--remount-ro", "/proc"]),
        *_devices(),
        *readable_options(),
        *(word for folder in ("/tmp", "/dev/shm") for word in (*_TMPFS, folder)),
        "--remount-ro", "/",  # the root is a tmpfs without a cap
        "--chdir", "/tmp",
        "--", *inner,
    ]  # fmt: skip


def remedy() -> str:
    """Return the one thing to do where bubblewrap cannot run a program."""
    if shutil.which("bwrap") is None:
        return "install it with `apt-get install bubblewrap`"
    for name, forbids, allows in _SWITCHES:
        path = Path("/proc/sys") / name
        if path.exists() and path.read_text("ascii").strip() == forbids:
            return f"allow user namespaces with `sysctl -w {name.replace('/', '.')}={allows}`"
    return (
        "in a container, start that one with `docker run --security-opt seccomp=unconfined "
        "--security-opt systempaths=unconfined`"
    )


def readable_folders() -> list[str]:
    """Return the files and folders that Python needs: its own library and the C library."""
    prefixes = {sys.base_prefix, sys.base_exec_prefix} - {"/usr"}  # /usr/lib stands already
    own = sorted(prefixes | {os.path.realpath(prefix) for prefix in prefixes})
    system = ["/usr/lib", "/usr/lib64", "/usr/lib32", "/lib", "/lib64", "/etc/ld.so.cache"]
    return [*system, *own, os.path.realpath(sys.executable)]


def readable_options() -> list[str]:
    """Return the options that show `readable_folders`, symbolic links as they are."""
    options: list[str] = []
    for path in readable_folders():
        for parent in reversed(Path(path).parents[:-1]):
            options += ["--dir", str(parent)]  # else bubblewrap makes it for root alone
        if Path(path).is_symlink():
            options += ["--symlink", str(Path(path).readlink()), path]
        else:
            options += ["--ro-bind-try", path, path]
    return options


def _devices() -> list[str]:
    """Return the options for the plain devices: no terminals, which programs would share."""
    options = ["--dir", "/dev", "--dir", "/dev/shm"]
    for name in _DEVICES:
        options += ["--dev-bind", f"/dev/{name}", f"/dev/{name}"]
    for name, target in {"fd": "", "stdin": "/0", "stdout": "/1", "stderr": "/2"}.items():
        options += ["--symlink", f"/proc/self/fd{target}", f"/dev/{name}"]
    return options


def _may_administrate() -> bool:
    """Return whether this process is root and may make namespaces without a user's own."""
    if os.geteuid() != 0:
        return False
    for line in Path("/proc/self/status").read_text("ascii").splitlines():
        if line.startswith("CapEff:"):
            return bool(int(line.split()[1], 16) >> _SYS_ADMIN & 1)
    return False
