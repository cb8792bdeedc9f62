"""The warm server: an interpreter that is up already and forks once for every program.

It runs inside the sandbox and imports the standard library only. Requests (limits and
descriptors, over a socket) in, one enclosed process each out, which then calls the harness.
Of every program the server sends back the descriptor by which it can be killed, and at its
end how it ended. It never reads a job. A second process beside each program, to wait for
it, would cost as much again as the program. Not here: what is asked of a program
(`cuvee.verify.code.harness`), watching it (`cuvee.verify.sandbox.watch`).

In namespaces of its own the program is process 1: signals that it sends to itself and has no
handler for are ignored, as the kernel has it for every such process.
"""

import ctypes
import functools
import gc
import importlib
import json
import os
import resource
import select
import signal
import socket
import struct
import sys
from collections.abc import Callable
from typing import Any, NoReturn

from cuvee.verify.sandbox import landlock, namespaces, seccomp
from cuvee.verify.sandbox.finish import finish

UNPRIVILEGED = 65534
MEMORY_RESERVE = 32 * 2**20
"""Bytes of address space that the harness may still take to report a MemoryError."""
REQUEST_BYTES = 1 << 16
_PROGRAM_PID = 1  # in namespaces of its own
_PRELOADED = """abc array base64 bisect collections copy dataclasses datetime decimal enum
fractions functools hashlib heapq io itertools json math operator os queue random re
statistics string struct sys textwrap threading time traceback types typing""".split()
"""What programs import most: loaded once, not once a program."""
_DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")
_PR_SET_PDEATHSIG = 1
_FAR = 64
"""Descriptors from here on are out of the way of the program's own."""
_DESCRIPTORS = 1024
"""No process here has more."""

_LIBC = ctypes.CDLL(None, use_errno=True)


def serve(control: socket.socket, config: dict[str, Any]) -> Callable[[], None]:
    """Fork a process for every request; return, in each of them alone, what is left to do.

    `config`: `enclosure` (`namespaces`, `filter`, `landlock` or `none`), `unprivileged`
    (whether to give up root's rights), `readable` (paths, for Landlock). Ends the server when
    the other side of `control` is closed.
    """
    enclosure = config["enclosure"]
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(_DESCRIPTORS, hard), hard))
    for name in _PRELOADED:
        importlib.import_module(name)
    if config["unprivileged"]:
        namespaces.become(UNPRIVILEGED)
    if enclosure != "none":
        namespaces.set_readable(False)
        _filter(_PROGRAM_PID, enclosure)
    _die_with_parent()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # else nobody learns how a program ended
    _address_space()
    _own_modules()
    gc.collect()
    gc.freeze()
    control.send(b"up")
    poll = select.poll()
    poll.register(control, select.POLLIN)
    # Plain numbers: a socket object of another program would close, in a child, whatever has
    # its number there.
    running: dict[int, tuple[int, int]] = {}
    while True:
        for number, _ in poll.poll():
            if number != control.fileno():
                poll.unregister(number)
                _end(number, *running.pop(number), enclosure=enclosure)
                continue
            channel, given, request = _receive(control)
            pid = _fork(channel, enclosure=enclosure)
            if pid == 0:  # nothing that fails in a child may lead back into this loop
                control.detach()
                return _enclose(channel, given, request, config)
            if pid is not None and (handle := _hand_over(channel, pid)) is not None:
                running[handle] = (pid, channel.detach())
                poll.register(handle, select.POLLIN)
            for descriptor in given:
                os.close(descriptor)


def _receive(control: socket.socket) -> tuple[socket.socket, list[int], dict[str, Any]]:
    """Return the next request: its channel, its descriptors, its limits. Ends at their end."""
    message, numbers, _, _ = socket.recv_fds(control, REQUEST_BYTES, 16)
    if not message:
        os._exit(0)
    return socket.socket(fileno=numbers[0]), numbers[1:], json.loads(message)


def _fork(channel: socket.socket, *, enclosure: str) -> int | None:
    """Fork; return 0 in the child, its number in the server, None where the kernel refuses."""
    try:
        return namespaces.fork_into_new() if enclosure == "namespaces" else os.fork()
    except OSError as error:
        _say(channel, failed=str(error))
        return None


def _hand_over(channel: socket.socket, pid: int) -> int | None:
    """Send the descriptor that names a program; return it, None where it could not be sent."""
    handle = os.pidfd_open(pid)
    passed = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("@i", handle))]
    try:
        channel.sendmsg([b"{}"], passed)
    except OSError:  # nobody watches it
        signal.pidfd_send_signal(handle, signal.SIGKILL)
        os.waitid(os.P_PIDFD, handle, os.WEXITED)
        os.close(handle)
        return None
    return handle


def _end(handle: int, pid: int, number: int, *, enclosure: str) -> None:
    """Take note of a program's end and send how it ended, through the socket `number`."""
    if enclosure == "none":
        _kill_group(pid)  # before it is waited for, while its number is still its own
    ended = os.waitid(os.P_PIDFD, handle, os.WEXITED)
    assert ended is not None  # for the type checker: without WNOHANG there is a result
    code = ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status
    with socket.socket(fileno=number) as channel:
        _say(channel, exit_code=code)
    os.close(handle)


def _enclose(
    channel: socket.socket, numbers: list[int], request: dict[str, Any], config: dict[str, Any]
) -> Callable[[], None]:
    """Make this process the program: its descriptors, its limits, its walls."""
    enclosure = config["enclosure"]
    try:
        _die_with_parent()
        os.setsid()
        if enclosure != "none":
            namespaces.set_readable(True)  # else its own /proc/self is closed to it
        if enclosure == "namespaces":
            namespaces.name_user(UNPRIVILEGED)
            namespaces.mount_own_folders()
        channel = _arrange(channel, numbers)
        os.chdir(request["folder"])
        _limit(request)
        if enclosure != "none":
            namespaces.drop_rights()
        if enclosure == "landlock":
            readable = [*config["readable"], "/proc/self"]
            landlock.restrict(readable=readable, devices=_DEVICES, folder=request["folder"])
        if enclosure != "none":
            seccomp.enforce(_filter(os.getpid(), enclosure))
    except (OSError, ValueError) as error:
        _say(channel, failed=str(error))
        os._exit(1)
    channel.close()
    return functools.partial(_run_harness, peer=len(numbers) > _PEER)


_STDIN, _STDOUT, _STDERR, _JOB, _REPORT, _PEER = range(6)
"""The program's descriptors, and the order in which a request brings them."""


def _arrange(channel: socket.socket, numbers: list[int]) -> socket.socket:
    """Put the program's descriptors where they belong, close all others; return the channel."""
    far = [os.dup2(number, _FAR + index) for index, number in enumerate(numbers)]
    kept = os.dup2(channel.fileno(), _FAR + len(far))
    channel.detach()
    for index, number in enumerate(far):
        os.dup2(number, index)
    os.closerange(len(far), kept)
    os.closerange(kept + 1, _DESCRIPTORS)
    return socket.socket(fileno=kept)


def _limit(request: dict[str, Any]) -> None:
    """Set the limits of this process for good."""
    memory = _address_space() + request["memory"]
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory + MEMORY_RESERVE))
    for name, wanted in request["limits"].items():
        number = getattr(resource, f"RLIMIT_{name}")
        _, hard = resource.getrlimit(number)
        value = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(number, (value, value))


@functools.cache
def _address_space() -> int:
    """Return how many bytes of address space the bare interpreter has: asked by the server."""
    with open("/proc/self/statm", "rb") as file:  # noqa: PTH123 - no pathlib inside
        return int(file.read().split()[0]) * resource.getpagesize()


@functools.cache
def _filter(pid: int, enclosure: str) -> seccomp.Filter:
    return seccomp.prepared(seccomp.program_filter(pid, metadata=enclosure != "landlock"))


@functools.cache
def _own_modules() -> list[str]:
    """Return the names of our modules: asked by the server, as a look at each copies pages."""
    return [name for name in sys.modules if name.partition(".")[0] == "cuvee"]


def _run_harness(*, peer: bool) -> NoReturn:
    main = sys.modules["cuvee.verify.code.harness"].main
    for name in _own_modules():
        del sys.modules[name]
    finish(functools.partial(main, _JOB, _REPORT, _PEER if peer else -1))


def _die_with_parent() -> None:
    _LIBC.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)


def _kill_group(leader: int) -> None:
    try:
        os.killpg(leader, signal.SIGKILL)
    except ProcessLookupError:
        return


def _say(channel: socket.socket, **fields: Any) -> None:
    """Tell the other side; it may have gone."""
    try:
        channel.send(json.dumps(fields).encode())
    except OSError:
        return
