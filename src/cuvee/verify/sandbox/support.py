"""What this machine offers to keep programs apart: the facts of the documentation's table.

Nothing in, names and what was found out; every kind of sandbox is tried for real. Not here:
what to do about it (`cuvee.verify.sandbox.require` says that).
"""

import platform
import shutil
import subprocess
import sys
from pathlib import Path

from cuvee.errors import RecipeError
from cuvee.verify.sandbox import KINDS, landlock, require, seccomp

_SWITCHES = {
    "user namespaces": "/proc/sys/user/max_user_namespaces",
    "unprivileged user namespaces": "/proc/sys/kernel/unprivileged_userns_clone",
    "AppArmor restricts user namespaces": "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
}


def facts() -> dict[str, str]:
    """Return what was found by its name: the system, its switches, and each kind of sandbox.

    A kind's value is `yes`, or why it cannot run. Takes about a second the first time.
    """
    found = {
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "bubblewrap": _bubblewrap_version(),
        "Landlock version": _landlock_version(),
        "seccomp": "yes" if platform.machine() in seccomp.ARCHITECTURES else "no filter for it",
    }
    for name, path in _SWITCHES.items():
        found[name] = Path(path).read_text("ascii").strip() if Path(path).exists() else "no such"
    for kind in KINDS:
        try:
            require(kind)
        except RecipeError as error:
            found[f"sandbox {kind}"] = str(error)
        else:
            found[f"sandbox {kind}"] = "yes"
    return found


def _bubblewrap_version() -> str:
    bwrap = shutil.which("bwrap")
    if bwrap is None:
        return "none"
    said = subprocess.run([bwrap, "--version"], capture_output=True, text=True, check=False)
    return said.stdout.strip().removeprefix("bubblewrap ") or "unknown"


def _landlock_version() -> str:
    if sys.platform != "linux":
        return "none"
    try:
        return str(landlock.version())
    except OSError as error:
        return f"none ({error.strerror})"
