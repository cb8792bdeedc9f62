"""The thread that writes: what came in during one commit is committed together in the next.

So a commit waits for nothing but the one before (a few milliseconds on a local disk), and a
future is done when its write is on the disk. Not here: what the writes are.
"""

import contextlib
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from cuvee.errors import CuveeError
from cuvee.recipe.address import Place
from cuvee.teach.ledger.accounts import Totals
from cuvee.teach.ledger.stores import Connection, commit, connect, explained

GROUP = 1000
"""Writes committed together at most."""

Write = Callable[[Connection, Totals], Any]
"""What is done within a transaction, and the totals of that transaction."""
Job = tuple[Write, Future[Any]]
Jobs = queue.SimpleQueue[Job | None]
"""What waits to be written; None is the end."""


def start(place: Place, jobs: Jobs) -> threading.Thread:
    """Start the thread that writes `jobs` to the ledger at `place`, until they end.

    Raises as `stores.connect`: a server that is lost later is waited for.
    """
    arguments = (place, connect(place), jobs)
    thread = threading.Thread(target=_write_all, args=arguments, name="ledger", daemon=True)
    thread.start()
    return thread


def _write_all(place: Place, connection: Connection, jobs: Jobs) -> None:
    last = False
    while not last:
        group = _next_group(jobs)
        last = group[-1] is None
        todo = [job for job in group if job is not None]
        if not todo:
            break
        # Whoever waited may have been cancelled (Ctrl-C); the write is done all the same.
        waiting = [future.set_running_or_notify_cancel() for _, future in todo]
        try:
            with explained(place):
                results = _commit_group(connection, [write for write, _ in todo])
        except (CuveeError, OSError, ValueError, OverflowError) as error:
            for (_, future), waits in zip(todo, waiting, strict=True):
                if waits:
                    future.set_exception(error)
            continue
        for (_, future), waits, result in zip(todo, waiting, results, strict=True):
            if waits:
                future.set_result(result)
    connection.close()


def _commit_group(connection: Connection, writes: list[Write]) -> list[Any]:
    def write_all(within: Connection) -> list[Any]:
        totals = Totals(within)
        results = [write(within, totals) for write in writes]
        totals.save()
        return results

    return commit(connection, write_all)


def _next_group(jobs: Jobs) -> list[Job | None]:
    """Return everything that waits, at least one; None (the end) can only be the last."""
    group = [jobs.get()]
    with contextlib.suppress(queue.Empty):
        while group[-1] is not None and len(group) < GROUP:
            group.append(jobs.get_nowait())
    return group
