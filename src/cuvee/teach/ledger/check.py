"""Whether a ledger is sound: the file, each answer in it, and the accounts.

`verify` reads all of it and says what is wrong; nothing is changed. An answer is sound where
its key is the hash of its request and its response can be read. Not here: repairing.
"""

import dataclasses
import json
import sqlite3
from collections import Counter
from collections.abc import Iterator

from cuvee.progress import Tick
from cuvee.recipe.address import Place
from cuvee.records import content_hash
from cuvee.teach.ledger.accounts import SUMS
from cuvee.teach.ledger.file import digest_of
from cuvee.teach.ledger.stores import Connection, one_state, opened, page_order
from cuvee.teach.reply import UnreadableReplyError, read_reply

PAGE_ROWS = 200
"""Answers read at once."""
SHOWN = 20
"""Faults that are told one by one; the rest are counted."""


@dataclasses.dataclass(frozen=True)
class Findings:
    """What `verify` found."""

    answers: int
    """That were read."""
    faults: Counter[str]
    """How many of each kind: `file`, `key`, `response`, `identity`, `accounts`; empty: sound."""
    details: list[str]
    """The first `SHOWN` of them, for people."""


def verify(place: Place, *, tick: Tick) -> Findings:
    """Check the whole ledger; `tick` counts answers.

    A server's own files are the server's to check. Raises DataError where it is no ledger at
    all, OSError where it cannot be opened.
    """
    findings = Findings(0, Counter(), [])
    answers = 0
    with opened(place, writing=False) as connection:
        try:
            for message in _file_faults(connection):
                _note(findings, "file", message)
            for key, request, response, identity, digest in _answers(connection):
                answers += 1
                tick(1)
                fault = fault_of(key, request, response) or _changed(
                    request, response, identity=identity, digest=digest
                )
                if fault is not None:
                    _note(findings, fault[0], f"answer {key}: {fault[1]}")
            for message in _accounts(connection):
                _note(findings, "accounts", message)
        except sqlite3.DatabaseError as error:
            _note(findings, "file", f"cannot be read on after {answers} answers: {error}")
    return dataclasses.replace(findings, answers=answers)


def fault_of(key: str, request: str, response: str) -> tuple[str, str] | None:
    """Return what is wrong with an answer (the kind, and a sentence), or None."""
    try:
        content = json.loads(request)
        hashed = content_hash(content)
    except (ValueError, RecursionError) as error:
        return "key", f"its request is no JSON ({error})"
    if hashed != key:
        return "key", f"its request has the hash {hashed}"
    if not isinstance(content, dict) or not isinstance(content.get("identity"), str):
        return "identity", "its request does not say which model was asked"
    try:
        read_reply(response)
    except UnreadableReplyError as error:
        return "response", str(error)
    return None


def _changed(request: str, response: str, *, identity: str, digest: str) -> tuple[str, str] | None:
    """Return where the two columns that are computed differ from what they are computed of."""
    asked = json.loads(request)["identity"]
    if asked != identity:
        return "identity", f"its column says {identity!r}, its request {asked!r}"
    if digest_of(response) != digest:
        return "response", "its response is not what was stored: the digest differs"
    return None


def _file_faults(connection: Connection) -> Iterator[str]:
    """Yield what SQLite finds wrong with its file, and make its reading forgiving."""
    if not isinstance(connection, sqlite3.Connection):
        return
    # A byte that is no UTF-8 must not end the reading: it shows as what it does to a key.
    connection.text_factory = lambda raw: raw.decode("utf-8", "replace")
    for (message,) in connection.execute("PRAGMA integrity_check"):
        if message != "ok":
            yield message


def _answers(connection: Connection) -> Iterator[tuple[str, str, str, str, str]]:
    # In pages, so that no reading transaction keeps the ledger from being tidied meanwhile.
    order, last = page_order(connection)
    query = (
        f"SELECT {order}, key, request, response, identity, digest FROM answers "
        f"WHERE {order} > ?1 ORDER BY {order} LIMIT {PAGE_ROWS}"
    )
    while page := connection.execute(query, (last,)).fetchall():
        yield from (row[1:] for row in page)
        last = page[-1][0]


def _accounts(connection: Connection) -> Iterator[str]:
    """Yield where the running totals do not fit the answers and sendings."""
    columns = "count(*), sum(prompt_tokens), sum(completion_tokens), sum(nanodollars)"
    names = ", ".join(SUMS)
    with one_state(connection):
        held, sent = (
            {
                (account, teacher): [count or 0 for count in counts]
                for account, teacher, *counts in connection.execute(
                    f"SELECT account, teacher, {columns} FROM {table} GROUP BY 1, 2"
                )
            }
            for table in ("answers", "sent")
        )
        totals = {
            (account, teacher): sums
            for account, teacher, *sums in connection.execute(
                f"SELECT account, teacher, {names} FROM totals"
            )
        }
    nothing = [0] * 4
    for payer in sorted(totals.keys() | held.keys() | sent.keys()):
        sums = totals.get(payer, nothing * 2)
        who = "account {!r}, teacher {!r}".format(*payer)
        # What was bought may be more than what is held: pruning gives no money back.
        if any(n > most for n, most in zip(held.get(payer, nothing), sums[:4], strict=True)):
            yield f"{who}: more answers are held than were ever bought"
        if sums[4:] != sent.get(payer, nothing):
            yield f"{who}: {sums[4]} sendings in doubt by its total, not as many by the rows"


def _note(findings: Findings, kind: str, detail: str) -> None:
    findings.faults[kind] += 1
    if len(findings.details) < SHOWN:
        findings.details.append(detail)
