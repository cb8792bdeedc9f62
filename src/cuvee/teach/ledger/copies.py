"""A whole ledger from one place to another: from a file to a server, back, or between alike.

All of it moves: answers as they stand, sendings in doubt, what every account has spent. The
answers go first, in the order of their keys, a page a transaction, so that a copy that was cut
off goes on where it stopped. Then both sides are read and compared, and only when they are the
same the accounts are written, in one transaction: a target with answers and no accounts is an
unfinished copy. Not here: adding answers to a ledger in use (`carry`).
"""

import contextlib
import dataclasses
import hashlib
from collections.abc import Iterator
from typing import Any, TypeAlias

from cuvee.errors import DataError
from cuvee.progress import Tick
from cuvee.recipe.address import Place
from cuvee.teach.ledger.accounts import SAVE, SUMS
from cuvee.teach.ledger.file import digest_of
from cuvee.teach.ledger.store import COLUMNS, INSERT, SEND
from cuvee.teach.ledger.stores import Connection, commit, connect, explained, one_state, opened

PAGE_ROWS = 100
"""Answers in a transaction: what is held in memory."""
ANSWER = f"key, {COLUMNS}, digest, identity"
"""The columns in the order of `store.INSERT`."""
RESPONSE, DIGEST = (ANSWER.split(", ").index(name) for name in ("response", "digest"))
SENT = "key, created, account, teacher, prompt_tokens, completion_tokens, nanodollars"
"""The columns in the order of `store.SEND`."""
Row: TypeAlias = tuple[Any, ...]


@dataclasses.dataclass(frozen=True)
class Copied:
    """What `copy` did."""

    answers: int
    """In both ledgers, compared text by text."""
    before: int
    """Of those, how many an earlier copy had brought."""
    in_doubt: int
    damaged: int
    """Answers that were not what was stored: copied as they are, for `verify` to name."""


@dataclasses.dataclass(frozen=True)
class State:
    """What a ledger holds, as far as two are compared."""

    answers: int
    fingerprint: str
    """SHA-256 of all columns of all answers, in the order of their keys."""
    damaged: int
    sent: list[Row]
    totals: list[Row]


def copy(source: Place, target: Place, *, tick: Tick) -> Copied:
    """Copy a ledger into a new one, or go on with a copy that was cut off.

    `tick` counts each answer three times: copied, read on one side, read on the other. Neither
    should be in use meanwhile: what came to the source in between is copied too where that
    can be seen in time, and the target stays unfinished otherwise. Raises DataError where the
    target holds something else or the two do not become the same, OSError.
    """
    if source == target:
        raise DataError(f"{source}: a ledger cannot be copied to where it is")
    with (
        opened(source, writing=False) as old,
        explained(target),
        contextlib.closing(connect(target)) as new,
    ):
        if _accounts(new) != ([], []):
            return _done_before(old, new, target=target, tick=tick)
        before = _count(new)
        tick(before)
        _bring(old, new, after=_last_key(new), tick=tick)
        asked = _state(old, tick=tick)
        if not _same_answers(asked, _state(new, tick=tick)):
            # The source had more, before the place where the earlier copy had stopped.
            _bring(old, new, after="", tick=lambda n: None)
            asked = _state(old, tick=lambda n: None)
            if not _same_answers(asked, _state(new, tick=lambda n: None)):
                raise DataError(
                    f"{target}: does not hold the same answers as {source}; is one of them in "
                    "use? Stop the runs, then copy again; a target that already had answers "
                    "that the source lacks must be a new one"
                )
        commit(new, lambda within: _finish(within, asked, target=target))
    return Copied(asked.answers, before, len(asked.sent), asked.damaged)


def _done_before(old: Connection, new: Connection, *, target: Place, tick: Tick) -> Copied:
    if _accounts(old) != _accounts(new):
        raise DataError(
            f"{target}: a ledger with accounts of its own: a copy needs a new one; to add answers "
            "to it use `cuvee ledger export` and `import`"
        )
    tick(_count(new))
    asked, held = _state(old, tick=tick), _state(new, tick=tick)
    if not _same_answers(asked, held):
        raise DataError(
            f"{target}: has the same accounts, and other answers: one of the two was pruned or "
            "damaged; `cuvee ledger verify` both"
        )
    return Copied(asked.answers, asked.answers, len(asked.sent), asked.damaged)


def _bring(old: Connection, new: Connection, *, after: str, tick: Tick) -> None:
    """Copy the answers whose keys come after one; what is there stays."""
    for page in _pages(old, after=after):
        commit(new, lambda within, page=page: within.executemany(INSERT, page))  # type: ignore[misc]
        tick(len(page))


def _finish(within: Connection, asked: State, *, target: Place) -> None:
    if _accounts(within) != ([], []):
        raise DataError(f"{target}: a run has written to it meanwhile; copy to a new ledger")
    within.executemany(SEND, asked.sent)
    within.executemany(SAVE, asked.totals)


def _state(connection: Connection, *, tick: Tick) -> State:
    """Read all of a ledger, as it stands at one moment."""
    content, answers, damaged = hashlib.sha256(), 0, 0
    with one_state(connection):
        for page in _pages(connection, after=""):
            for row in page:
                content.update(repr(row).encode("utf-8", "surrogatepass"))
                damaged += digest_of(row[RESPONSE]) != row[DIGEST]
            answers += len(page)
            tick(len(page))
        sent, totals = _accounts(connection)
    return State(answers, content.hexdigest(), damaged, sent, totals)


def _same_answers(one: State, other: State) -> bool:
    return (one.answers, one.fingerprint) == (other.answers, other.fingerprint)


def _accounts(connection: Connection) -> tuple[list[Row], list[Row]]:
    """Return what is in doubt, in the order it was sent, and all running totals."""
    sent = connection.execute(f"SELECT {SENT} FROM sent ORDER BY id").fetchall()
    names = f"account, teacher, {', '.join(SUMS)}"
    query = f"SELECT {names} FROM totals ORDER BY account, teacher"
    return sent, connection.execute(query).fetchall()


def _pages(connection: Connection, *, after: str) -> Iterator[list[Row]]:
    query = f"SELECT {ANSWER} FROM answers WHERE key > ?1 ORDER BY key LIMIT {PAGE_ROWS}"
    while page := connection.execute(query, (after,)).fetchall():
        yield page
        after = page[-1][0]


def _last_key(connection: Connection) -> str:
    ((key,),) = connection.execute("SELECT max(key) FROM answers").fetchall()
    return key or ""


def _count(connection: Connection) -> int:
    ((count,),) = connection.execute("SELECT count(*) FROM answers").fetchall()
    return int(count)
