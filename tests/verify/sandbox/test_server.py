"""The warm server: one for all programs, nothing passes between them, nothing is left over."""

import ast
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from cuvee.errors import RecipeError
from cuvee.verify import sandbox
from cuvee.verify.sandbox import Limits, warm
from cuvee.verify.sandbox.program import run_program
from cuvee.verify.sandbox.warm import Way

Run = Callable[..., Any]
Prints = Callable[..., str]
Wait = Callable[[Callable[[], Any]], Any]
Descendants = Callable[[int], set[int]]

LEAVE = """
import builtins, json, os, sys, threading
for folder in (".", "/tmp", "/dev/shm"):
    try:
        open(folder + "/left", "w").write("left")
    except OSError:
        pass
os.environ["LEFT"] = "left"
os.umask(0)
os.nice(1)
sys.left = builtins.left = json.left = os.left = "left"
sys.modules["left"] = sys
sys.setrecursionlimit(77)
threading.stack_size(2**20)
import random, signal, locale, decimal, gc
random.seed(1)
decimal.getcontext().prec = 3
gc.disable()
signal.signal(15, signal.SIG_IGN)
json.dumps = builtins.print = builtins.len = None
"""
LOOK = """
import builtins, decimal, gc, glob, json, os, signal, sys, threading
print(glob.glob("left") + glob.glob("/tmp/left") + glob.glob("/dev/shm/left"))
print("LEFT" in os.environ, oct(os.umask(0)), os.nice(0), "left" in sys.modules)
print([hasattr(x, "left") for x in (sys, builtins, json, os)], json.dumps(len("abc")))
print(sys.getrecursionlimit(), threading.stack_size(), decimal.getcontext().prec, gc.isenabled())
print(signal.getsignal(15))
"""


def test_no_state_passes_from_one_program_to_the_next(kind: str, prints: Prints) -> None:
    before = prints(LOOK, kind)
    prints(LEAVE, kind)
    assert prints(LOOK, kind) == before
    lines = before.splitlines()
    assert lines[0] == "[]"
    assert lines[1].startswith("False")
    assert lines[1].endswith("False")
    assert lines[2] == "[False, False, False, False] 3"
    assert lines[3] == "1000 0 28 True"


def test_random_numbers_differ_between_programs(kind: str, prints: Prints) -> None:
    program = "import os, random\nprint(random.random(), os.urandom(4))"
    assert len({prints(program, kind) for _ in range(5)}) == 5


def test_the_order_of_sets_is_the_same_every_time(kind: str, prints: Prints) -> None:
    assert len({prints("print(set('abcdefgh'))", kind) for _ in range(3)}) == 1


def test_programs_run_at_once(kind: str, prints: Prints) -> None:
    with ThreadPoolExecutor(8) as threads:
        begin = time.monotonic()
        list(threads.map(lambda _: prints("import time\ntime.sleep(1)", kind), range(8)))
    assert time.monotonic() - begin < 6  # 8 when one after another


def test_one_server_serves_many_threads(kind: str, prints: Prints) -> None:
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda _: prints("print(1)", kind), range(8)))
    way = sandbox._way(kind)
    if way.shared:
        assert warm._servers[way].process.poll() is None


def test_memory_and_descriptors_stay_flat(kind: str, prints: Prints) -> None:
    def turn() -> tuple[int, int]:
        for n in range(40):
            prints("print('x' * 100_000)" if n % 2 else "pass", kind)
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return len(list(Path("/proc/self/fd").iterdir())), memory

    descriptors, memory = turn()
    for _ in range(2):
        after = turn()
    assert after[0] == descriptors
    assert after[1] - memory < 2000  # kB


def test_a_server_that_died_is_replaced(kind: str, prints: Prints, wait_for: Wait) -> None:
    way = sandbox._way(kind)
    if not way.shared:
        pytest.skip("each program has a server of its own here")
    prints("pass", kind)
    first = warm._servers[way].process
    first.kill()
    wait_for(lambda: first.poll() is not None)
    assert prints("print(1)", kind) == "1\n"
    assert warm._servers[way].process is not first


def test_a_program_whose_server_dies_is_not_judged(kind: str, descendants: Descendants) -> None:
    way = sandbox._way(kind)
    if not way.shared:
        pytest.skip("each program has a server of its own here")

    def kill(_: bytes) -> bool:
        warm._servers[way].process.kill()
        return True

    ended = sandbox.run(
        {"kind": "stdin", "program": "import time\ntime.sleep(60)"},
        stdin=b"",
        kind=kind,
        limits=Limits(20, 256),
        on_report=kill,
    )
    assert ended.how == "not_started"
    assert "the sandbox ended" in ended.stderr


def test_nothing_is_left_of_a_program(
    kind: str, prints: Prints, descendants: Descendants, wait_for: Wait
) -> None:
    prints("pass", kind)
    time.sleep(0.5)  # until what earlier programs left has gone
    before = descendants(os.getpid())
    seen: list[set[int]] = []

    def look(_: bytes) -> bool:
        seen.append(descendants(os.getpid()) - before)
        return True

    job = {"kind": "stdin", "program": "import time\ntime.sleep(60)"}
    limits = Limits(0.5, 256)
    ended = sandbox.run(job, stdin=b"", kind=kind, limits=limits, on_report=look)
    assert ended.how == "time_limit"
    assert seen[0]  # the program
    wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in seen[0]))


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
def test_everything_dies_with_the_process_that_started_it(
    end: signal.Signals, kind: str, descendants: Descendants, wait_for: Wait
) -> None:
    script = f"""
import threading
from cuvee.verify import sandbox
job = {{"kind": "stdin", "program": "import time; time.sleep(77.25)"}}
limits = sandbox.Limits(60, 256)
def run():
    up = lambda _: print("up", flush=True) or True
    sandbox.run(job, stdin=b"", kind={kind!r}, limits=limits, on_report=up)
threading.Thread(target=run).start()
"""
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    with parent:
        parent.stdout.readline()
        # the server and the program
        inside = wait_for(lambda: found if len(found := descendants(parent.pid)) >= 2 else None)
        os.kill(parent.pid, end)
    wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in inside))


def test_a_process_that_ends_well_leaves_no_server(kind: str) -> None:
    script = f"""
import threading
from cuvee.verify import sandbox
job = {{"kind": "stdin", "program": "print(1)"}}
limits = sandbox.Limits(9, 256)
def run():
    sandbox.run(job, stdin=b"", kind={kind!r}, limits=limits, on_report=bool)
thread = threading.Thread(target=run)
thread.start()
thread.join()
run()  # the server outlives the thread that started it
print([s.process.pid for s in sandbox.warm._servers.values()])
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    for pid in ast.literal_eval(done.stdout):
        assert not Path(f"/proc/{pid}").exists()


def test_a_forked_child_has_a_server_of_its_own(kind: str, prints: Prints) -> None:
    prints("pass", kind)
    script = f"""
import os
from cuvee.verify import sandbox
limits = sandbox.Limits(9, 256)
def run():
    job = {{"kind": "stdin", "program": "print(1)"}}
    return sandbox.run(job, stdin=b"", kind={kind!r}, limits=limits, on_report=bool)
assert run().stdout == b"1\\n"
child = os.fork()
assert run().stdout == b"1\\n"
if child:
    assert os.waitpid(child, 0)[1] == 0
    assert run().stdout == b"1\\n"
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


def test_where_nested_namespaces_are_refused_each_program_has_a_bubblewrap_of_its_own(
    bubblewrap: str,
) -> None:
    way = Way(bubblewrap=True, enclosure="filter", shared=False)
    program = """
import os
print(os.getuid(), os.path.exists("/etc/passwd"), os.listdir("/tmp"))
for folder in ("/tmp", "/dev/shm"):
    try:
        for n in range(99):
            open(f"{folder}/{n}", "wb").write(bytes(2**21))
    except OSError:
        print(20 < len(os.listdir(folder)) < 34)
for refused in (os.fork, lambda: os.kill(os.getppid(), 9), lambda: open("/proc/1/mem"),
                lambda: os.listdir(f"/proc/{os.getppid()}/fd"), lambda: open("/proc/sys/x", "w")):
    try:
        refused()
        print("it did")
    except OSError:
        pass
"""
    job = {"kind": "stdin", "program": program}
    ended = run_program(
        way, job, stdin=b"", limits=Limits(9, 256), on_report=lambda _: True, peer=None
    )
    assert ended.stdout == b"65534 False []\nTrue\nTrue\n", ended


def test_without_a_sandbox_a_program_runs_with_the_users_rights(prints: Prints) -> None:
    program = "import os\nprint(os.path.exists('/etc/passwd'), os.listdir('.'), os.getuid())"
    assert prints(program, "none") == f"True [] {os.getuid()}\n"


def test_without_a_sandbox_children_are_ended_too(run: Run, wait_for: Wait) -> None:
    program = """
import os, time
pid = os.fork()
print(pid or os.getpid(), flush=True)
if not pid:
    time.sleep(60)
"""
    ended, _ = run(program, "none")
    child = int(ended.stdout.split()[0])
    wait_for(lambda: not Path(f"/proc/{child}").exists())


@pytest.fixture
def forgotten() -> Iterator[None]:
    """Begin and end without servers, and without having tried any."""
    sandbox._tried.cache_clear()
    warm._stop_all()
    yield
    sandbox._tried.cache_clear()
    warm._stop_all()


@pytest.mark.usefixtures("forgotten")
def test_without_bubblewrap_the_error_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    said = r"no program `bwrap`.*`apt-get install bubblewrap`.*landlock.*sandbox: none"
    with pytest.raises(RecipeError, match=said):
        sandbox.require("bubblewrap")
    sandbox.require("none")


@pytest.mark.usefixtures("forgotten")
def test_elsewhere_than_on_linux_every_kind_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    for kind in sandbox.KINDS:
        with pytest.raises(RecipeError, match="programs are run on Linux only, and this is darwin"):
            sandbox.require(kind)


@pytest.mark.usefixtures("forgotten")
def test_a_bubblewrap_that_does_not_work_is_said_with_its_own_words(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "bwrap").write_text("#!/bin/sh\necho no permission for that >&2\nexit 1\n")
    (tmp_path / "bwrap").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin")
    with pytest.raises(RecipeError, match=r"no permission for that.*landlock"):
        sandbox.require("bubblewrap")


def test_an_unknown_sandbox_is_refused() -> None:
    with pytest.raises(RecipeError, match="must be bubblewrap, landlock or none"):
        sandbox.require("docker")


def test_the_first_calls_may_come_from_many_threads_at_once(kind: str) -> None:
    script = f"""
from concurrent.futures import ThreadPoolExecutor
from cuvee.verify import sandbox
limits = sandbox.Limits(9, 256)
def run(n):
    job = {{"kind": "stdin", "program": f"print({{n}})"}}
    return sandbox.run(job, stdin=b"", kind={kind!r}, limits=limits, on_report=bool)
with ThreadPoolExecutor(8) as threads:
    assert [int(e.stdout) for e in threads.map(run, range(16))] == list(range(16))
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


def test_a_thread_that_waits_does_not_stop_the_others(kind: str, prints: Prints) -> None:
    slow = threading.Thread(target=prints, args=("import time\ntime.sleep(1.5)", kind))
    slow.start()
    begin = time.monotonic()
    prints("pass", kind)
    assert time.monotonic() - begin < 1.4
    slow.join()


def test_a_program_that_cannot_be_enclosed_is_not_judged_and_harms_no_other(
    landlock: str, prints: Prints
) -> None:
    way = sandbox._way(landlock)
    server = warm.shared_server(way)
    wanted = {"folder": "/no/such/folder", "memory": 2**28, "limits": {}}
    with open("/dev/null", "r+b") as null:  # noqa: PTH123 - descriptors are what is passed
        channel = warm.request(server, wanted, [null.fileno()] * 5)
    with channel:
        channel.settimeout(10)
        said = [channel.recv(999), channel.recv(999), channel.recv(999)]
    assert any(b"/no/such/folder" in one for one in said)
    assert prints("print(1)", landlock) == "1\n"
    assert warm.shared_server(way) is server
