"""What kills, fills or damages: the ledger keeps what it acknowledged, or says what is wrong."""

import errno
import random
import resource
import signal
import subprocess
import sys
import textwrap
import time
from concurrent.futures import Future
from pathlib import Path

import pytest

from cuvee.errors import DataError
from cuvee.progress import Tick
from cuvee.recipe.address import Place
from cuvee.records import content_hash, dumps
from cuvee.teach.ledger import Answer, Cost, Ledger, Payer
from cuvee.teach.ledger.check import verify
from cuvee.teach.ledger.stores import opened

PAYER = Payer("run", "alice")
COST = Cost(1, 2, 0.003)
SILENT: Tick = lambda n: None  # noqa: E731


def put(ledger: Ledger, key: str, response: str = "{}") -> "Future[Answer]":
    return ledger.put(
        key, request="{}", response=response, status=200, seconds=1.5, payer=PAYER, cost=COST
    )


def python(code: str, *args: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), *args], stdout=subprocess.PIPE, text=True
    )


WRITER = """
import asyncio, json, sys
from cuvee.records import content_hash, dumps
from cuvee.teach.ledger import Cost, Ledger, Payer

ledger, first = Ledger.open(sys.argv[1]), int(sys.argv[2])
payer, most = Payer("run", "alice"), Cost(10, 20, 0.5)
response = json.dumps({"choices": [{"message": {"content": "x" * 3000}}]})

async def ask(line):
    for number in range(first + line, 10**9, 8):
        content = {"identity": "m", "number": number}
        key = content_hash(content)
        if ledger.holds(key):
            continue
        await asyncio.wrap_future(
            ledger.mark_sent(key, payer=payer, reserved=most, budget=None))
        print("sent", key, flush=True)
        await asyncio.wrap_future(
            ledger.put(key, request=dumps(content), response=response, status=200, seconds=1.0,
                       payer=payer, cost=Cost(1, 2, 0.25)))
        print("answered", key, flush=True)

async def main():
    await asyncio.gather(*[ask(line) for line in range(8)])

asyncio.run(main())
"""


def kill_writers(path: Place, *, moments: int, seed: int) -> None:
    """Kill 8 requests at once at random moments; check after each what the next one finds."""
    rng = random.Random(seed)
    sent: list[str] = []
    answered: list[str] = []
    for moment in range(moments):
        child = python(WRITER, str(path), str(10**6 * moment))
        assert child.stdout is not None
        lines = [child.stdout.readline()]  # it is at work
        time.sleep(rng.random() * 0.2)
        child.send_signal(signal.SIGKILL)
        lines += [line for line in child.stdout if line.endswith("\n")]
        child.wait()
        child.stdout.close()
        sent += [line.split()[1] for line in lines if line.startswith("sent")]
        answered += [line.split()[1] for line in lines if line.startswith("answered")]
        with Ledger.open(path) as ledger:
            assert all(ledger.holds(key) for key in answered), "acknowledged, and lost"
            spent = ledger.spent("run").total
            assert spent.answers == ledger.count_answers()
            assert 0 <= spent.answers - len(answered) <= 8 * (moment + 1)
            # At most the concurrency is in doubt, each at its reservation.
            assert spent.in_doubt == ledger.count_in_doubt() <= 8 * (moment + 1)
            assert spent.usd == spent.answers * 0.25 + spent.in_doubt * 0.5
            unanswered = set(sent) - set(answered)
            assert all(ledger.holds(key) or is_marked(path, key) for key in unanswered)
    assert len(answered) > moments
    found = verify(path, tick=SILENT)
    assert (found.answers, found.details) == (spent.answers, [])


def is_marked(path: Place, key: str) -> bool:
    with opened(path, writing=False) as connection:
        return bool(connection.execute("SELECT 1 FROM sent WHERE key = ?1", (key,)).fetchall())


def test_kill_9_at_six_random_moments(place: Place) -> None:
    kill_writers(place, moments=6, seed=1)


@pytest.mark.slow
def test_kill_9_at_fifty_random_moments(place: Place) -> None:
    kill_writers(place, moments=50, seed=2)


def test_processes_that_open_and_write_at_once_lose_nothing(place: Place) -> None:
    code = """
        import sys
        from cuvee.teach.ledger import Ledger, Payer
        with Ledger.open(sys.argv[1]) as ledger:
            for number in range(100):
                key = f"{sys.argv[2]}-{number}"
                ledger.put(key, request="{}", response=key, status=200, seconds=1,
                           payer=Payer("run", sys.argv[2]), cost=None).result()
        """
    children = [python(code, str(place), str(number)) for number in range(4)]
    for child in children:
        child.communicate()
        assert child.returncode == 0
    with Ledger.open(place) as ledger:
        assert ledger.count_answers() == 400
        assert [s.answers for s in ledger.spent("run").teachers.values()] == [100] * 4


def test_processes_that_write_the_same_keys_all_go_on_with_the_same_answers(place: Place) -> None:
    code = """
        import sys
        from cuvee.teach.ledger import Cost, Ledger, Payer
        payer = Payer("run", sys.argv[2])
        with Ledger.open(sys.argv[1]) as ledger:
            for number in range(50):
                key = str(number)
                marked = ledger.mark_sent(key, payer=payer, reserved=Cost(1, 1, 1.0), budget=None)
                answer = marked.result().answer or ledger.put(
                    key, request="{}", response=f"by {payer.teacher}", status=200, seconds=1,
                    payer=payer, cost=Cost(1, 1, 1.0)).result()
                print(answer.response)
        """
    children = [python(code, str(place), str(number)) for number in range(4)]
    seen = [child.communicate()[0].splitlines() for child in children]
    with Ledger.open(place) as ledger:
        stored = [ledger.get(str(number)) for number in range(50)]
        total = ledger.spent("run").total
    assert seen == [[answer.response for answer in stored if answer is not None]] * 4
    assert 50 <= total.answers <= 200
    assert total.usd == total.answers, "what was bought twice is counted twice"
    assert total.in_doubt == 0


def test_a_full_disk_is_an_os_error_with_the_path_and_the_rest_survives(tmp_path: Path) -> None:
    path = tmp_path / "l.sqlite"
    with Ledger.open(path) as ledger:
        put(ledger, "before").result()
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        # The kernel then refuses to make files longer, as a full disk does.
        resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 100_000, hard))
        try:
            with pytest.raises(OSError, match="ledger") as caught:
                for number in range(1000):
                    put(ledger, str(number), "x" * 1_000_000).result()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert caught.value.filename == str(path)
        assert caught.value.errno in (errno.ENOSPC, errno.EIO)
        put(ledger, "after").result()
        count = ledger.count_answers()
        assert ledger.spent("run").total.answers == count, "no cost without its answer"
    with Ledger.open(path) as ledger:
        assert ledger.get("before")
        assert ledger.get("after")


def test_a_damaged_ledger_says_so(tmp_path: Path) -> None:
    path = tmp_path / "l.sqlite"
    with Ledger.open(path) as ledger:
        for number in range(200):
            put(ledger, str(number), "x" * 1000).result()
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * (size - 4096))
    with Ledger.open(path) as ledger, pytest.raises(DataError, match=r"l\.sqlite.*move it away"):
        ledger.get("7")


@pytest.mark.parametrize("seed", range(20))
def test_bad_bytes_anywhere_are_found_or_do_no_harm(tmp_path: Path, seed: int) -> None:
    """Overwrite a few bytes: `verify` names a fault, or every answer is as it was."""
    path = tmp_path / "l.sqlite"
    response = dumps({"choices": [{"message": {"content": "right " * 300}}]})
    keys = []
    with Ledger.open(path) as ledger:
        for number in range(60):
            request = {"identity": "m", "number": number}
            keys.append(content_hash(request))
            ledger.put(
                keys[-1],
                request=dumps(request),
                response=response,
                status=200,
                seconds=1.0,
                payer=PAYER,
                cost=COST,
            )
    whole = bytearray(path.read_bytes())
    rng = random.Random(seed)
    at = rng.randrange(100, len(whole) - 8)
    whole[at : at + 8] = rng.randbytes(8)
    path.write_bytes(whole)
    try:
        found = verify(path, tick=SILENT)
        with Ledger.open(path) as ledger:
            answers = [ledger.get(key) for key in keys]
    except (DataError, OSError) as error:
        assert str(path) in str(error)
        return
    assert found.faults or all(a is not None and a.response == response for a in answers)
