"""`check_rows`: rows of problem + reply as other programs write them in, verdict rows out.

Rows are mappings, of any number: they are read, checked and given back in chunks, in order,
and what is held at once does not grow with them. A row holds a problem (question, gold or
tests) and a reply, under the usual column names (`cuvee.verify.columns`) or those that the
caller maps. Synchronous, and callable from any thread; nothing is kept between calls but
the workers. Not here: reading files (`cuvee.problems.files`), what a verdict means
(`cuvee.verify.check`).
"""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from cuvee.errors import DataError, RecipeError
from cuvee.progress import Tick
from cuvee.recipe import Verify
from cuvee.records import Problem, Trace, Verdict, dumps, problem_id
from cuvee.verify.check import (
    NO_CHECKER,
    VERIFIERS,
    check_gold_pairs,
    check_pairs,
    dress,
    trace_of,
)
from cuvee.verify.code import published
from cuvee.verify.columns import (
    MissingColumnError,
    check_names,
    choice_gold,
    find,
    math_gold,
    program_gold,
    require,
    text_of,
)
from cuvee.verify.instructions import forms
from cuvee.verify.sandbox import KINDS

CHUNK_ROWS = 2048
CHUNK_CHARACTERS = 32 * 2**20
"""A chunk ends with the row that exceeds either: 50 MB replies must not be held by the 1000."""

NAMES = (*VERIFIERS, "none")

Row = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Reading:
    """How rows are read. Raises RecipeError for names that are not known."""

    verifier: str | None = None
    columns: Mapping[str, str] = dataclasses.field(default_factory=dict)
    golds: bool = False

    def __post_init__(self) -> None:
        """Check the names."""
        if self.verifier is not None and self.verifier not in NAMES:
            raise RecipeError(f"verifier {self.verifier!r}: allowed are {', '.join(NAMES)}")
        check_names(self.columns)


def check_rows(
    rows: Iterable[Row | DataError],
    *,
    verifier: str | None = None,
    columns: Mapping[str, str] | None = None,
    golds: bool = False,
    limits: Verify | None = None,
    sandbox: str = "bubblewrap",
) -> Iterator[Verdict]:
    """Yield a verdict for each row, in order.

    `verifier` (math, code, choice, instructions, none) is that of rows without a column
    `verifier`; where there is neither, rows with instructions are checked by them, rows with
    tests are code and the others math. `columns` maps our names (question, gold, program,
    tests, instructions, kwargs, verifier, reply, id, finish_reason) to the rows' own.
    With `golds` each row's gold is checked instead of a reply, dressed as one. `sandbox` is
    bubblewrap, landlock or none; `limits` are those of a recipe's `verify:`.

    `trace_id` is the row's id, or else its number from 1; `problem_id` the hash of its
    content; `domain` its verifier. A row that cannot be read, and a DataError that stands in
    the place of one, is `not_checked` (`bad_row`) with row and column in `detail`.

    Raises RecipeError for a name that is not known and where code is to be run without its
    sandbox; DataError where the first row lacks a column; VerifierError where no worker
    starts.
    """
    reading = Reading(verifier, dict(columns or {}), golds)
    return check_reading(rows, reading, limits=limits or Verify(), sandbox=sandbox, tick=_uncounted)


def _uncounted(_: int) -> None:
    """Tick nothing: who iterates counts."""


def check_reading(
    rows: Iterable[Row | DataError],
    reading: Reading,
    *,
    limits: Verify,
    sandbox: str,
    tick: Tick,
    start: int = 1,
) -> Iterator[Verdict]:
    """Return verdicts as `check_rows` does; `tick` counts rows as they end, in any order.

    `start` is the first row's number: of rows that others stand before.
    """
    if sandbox not in KINDS:
        raise RecipeError(f"sandbox {sandbox!r}: allowed are {', '.join(KINDS)}")
    chunks = _chunks(enumerate(rows, start=start), reading)
    return _checked(chunks, reading, limits=limits, sandbox=sandbox, tick=tick)


def _checked(
    chunks: "Iterable[list[_Read]]", reading: Reading, *, limits: Verify, sandbox: str, tick: Tick
) -> Iterator[Verdict]:
    for chunk in chunks:
        yield from _checked_chunk(chunk, reading, limits=limits, sandbox=sandbox, tick=tick)


def _checked_chunk(
    chunk: "Sequence[_Read]", reading: Reading, *, limits: Verify, sandbox: str, tick: Tick
) -> Iterator[Verdict]:
    pairs = [read for read in chunk if not isinstance(read, Verdict)]
    check = check_gold_pairs if reading.golds else check_pairs
    verdicts = iter(check(pairs, limits=limits, sandbox=sandbox, tick=tick))
    tick(len(chunk) - len(pairs))
    for read in chunk:
        yield read if isinstance(read, Verdict) else next(verdicts)


def check_numbered(
    rows: Iterable[tuple[int, Row | DataError]], reading: Reading, *, limits: Verify, sandbox: str
) -> list[Verdict]:
    """Return the verdicts of a chunk of rows with their numbers, as `check_rows` gives them.

    All of it is held. Raises as `check_rows` does.
    """
    chunk = [_read(row, number, reading) for number, row in rows]
    return list(_checked_chunk(chunk, reading, limits=limits, sandbox=sandbox, tick=_uncounted))


_Read = tuple[Trace, Problem] | Verdict


def _read(row: Row | DataError, number: int, reading: Reading) -> _Read:
    """Return a row read, or the verdict of one that cannot be."""
    try:
        return read_pair(row, number, reading)
    except MissingColumnError as error:
        if number == 1:  # as a table's header: said before anything is checked
            raise DataError(str(error)) from error
        return bad_row(row, number, f"row {number}: {error}", reading)
    except DataError as error:
        return bad_row(row, number, str(error), reading)


def _chunks(rows: Iterable[tuple[int, Row | DataError]], reading: Reading) -> Iterator[list[_Read]]:
    chunk: list[_Read] = []
    characters = 0
    for number, row in rows:
        read = _read(row, number, reading)
        chunk.append(read)
        characters += 0 if isinstance(read, Verdict) else _size(*read)
        if len(chunk) >= CHUNK_ROWS or characters >= CHUNK_CHARACTERS:
            yield chunk
            chunk, characters = [], 0
    if chunk:
        yield chunk


def _size(trace: Trace, problem: Problem) -> int:
    texts = (trace.reasoning, trace.answer, problem.question, problem.gold, problem.tests)
    return sum(len(text or "") for text in texts)


@dataclasses.dataclass(frozen=True)
class _Columns:
    """Where a row holds what; None for what it lacks and does not need."""

    verifier: str
    question: str | None
    gold: str | None
    tests: str | None
    """None where the tests are those of `of_row`, or none are needed."""
    of_row: str | None
    """The tests of a row that is published with them in several columns, in our form."""
    reply: str | None


def _columns(row: Row, reading: Reading) -> _Columns:
    """Return the columns of a row. Raises MissingColumnError, and DataError of damaged tests."""
    names = reading.columns
    stated = _verifier(row, reading)
    if stated == "instructions" or (stated is None and find(row, "instructions", names)):
        return _instructed(row, reading)
    spread = stated in ("code", None) and "tests" not in names
    of_row = published.from_row(row) if spread else None
    tests = None if of_row else find(row, "tests", names)
    verifier = stated or ("code" if of_row or tests else "math")
    kind = "program" if verifier == "code" else "gold"
    gold = find(row, kind, names)
    if gold is None and verifier != "none" and (verifier != "code" or reading.golds):
        require(row, kind, names)
    if verifier == "code" and of_row is None:
        tests = require(row, "tests", names)
    return _Columns(
        verifier=verifier,
        question=find(row, "question", names),
        gold=gold,
        tests=tests,
        of_row=of_row,
        reply=None if reading.golds else require(row, "reply", names, taken=gold),
    )


def _instructed(row: Row, reading: Reading) -> _Columns:
    """Return the columns of a row with instructions: IFEval's two, or tests that hold them."""
    names = reading.columns
    ids = find(row, "instructions", names)
    of_row = None
    if ids is not None:
        kwargs = require(row, "kwargs", names)
        of_row = forms.from_row(row, ids_column=ids, kwargs_column=kwargs)
    return _Columns(
        verifier="instructions",
        question=find(row, "question", names),
        gold=None,
        tests=None if of_row else require(row, "tests", names),
        of_row=of_row,
        reply=None if reading.golds else require(row, "reply", names),
    )


def _verifier(row: Row, reading: Reading) -> str | None:
    """Return the verifier that row or caller states, or None."""
    column = find(row, "verifier", reading.columns)
    stated = None if column is None else row[column]
    if stated is not None:
        if stated not in NAMES:
            shown = repr(stated)[:60]
            raise DataError(f"column {column!r}: {shown}, allowed are {', '.join(NAMES)}")
        return str(stated)
    return reading.verifier


def read_pair(row: Row | DataError, number: int, reading: Reading) -> tuple[Trace, Problem]:
    """Return a row as a trace and its problem.

    Raises DataError naming row and column, MissingColumnError.
    """
    if isinstance(row, DataError):
        raise row
    if not isinstance(row, Mapping):
        raise DataError(f"row {number}: wanted a mapping, got {type(row).__name__}")
    try:
        columns = _columns(row, reading)
        problem = _problem(row, columns)
        if reading.golds:
            trace = dress(problem)
            return dataclasses.replace(trace, id=_id(row, number, reading)), problem
        reply = _reply(row, columns.reply)
    except DataError as error:
        raise DataError(f"row {number}: {error}") from error
    finish = find(row, "finish_reason", reading.columns)
    cut = finish is not None and row[finish] == "length"
    trace = trace_of(
        problem,
        reply,
        trace_id=_id(row, number, reading),
        model="-",
        finish_reason="length" if cut else "stop",
    )
    return trace, problem


def _problem(row: Row, columns: _Columns) -> Problem:
    question = _text(row, columns.question) or ""
    gold = _text(row, columns.gold) or None
    tests = None
    if columns.verifier == "instructions":
        tests = columns.of_row if columns.tests is None else _text_of_json(row[columns.tests])
    elif columns.verifier == "code":
        tests = columns.of_row if columns.tests is None else _tests(row[columns.tests])
        gold = gold and program_gold(gold, row, question)
    elif columns.verifier == "choice" and columns.gold is not None:
        gold = choice_gold(row[columns.gold], row) or None
    elif gold is not None:
        gold = math_gold(gold) or None
    return Problem(
        id=problem_id(question, gold, tests),
        domain=columns.verifier,
        source="",
        question=question,
        prompt=question,
        verifier=columns.verifier,
        gold=gold,
        tests=tests,
        meta="{}",
    )


def _tests(value: Any) -> str | None:
    """Return tests in our form; what has no known form stays, and is found malformed."""
    known = published.from_value(value)
    if known is not None or value is None:
        return known
    return value if isinstance(value, str) else repr(value)[:200]


def _text_of_json(value: Any) -> str | None:
    """Return a cell of JSON as its text; what is none stays, and is found malformed."""
    try:
        return value if value is None or isinstance(value, str) else dumps(value)
    except (TypeError, ValueError, RecursionError):
        return repr(value)[:200]


def _text(row: Row, column: str | None) -> str | None:
    value = None if column is None else row[column]
    inner = value[0] if isinstance(value, list) and len(value) == 1 else value
    if inner is None or isinstance(inner, str | int | float):
        return text_of(inner)
    raise DataError(f"column {column!r}: wanted text or a number, got {_described(value)}")


def _reply(row: Row, column: str | None) -> str:
    value = None if column is None else row[column]
    if value is None or isinstance(value, str):
        return value or ""
    raise DataError(f"column {column!r}: wanted the reply as text, got {_described(value)}")


def _described(value: Any) -> str:
    size = f" of {len(value)}" if isinstance(value, list | tuple | dict | bytes) else ""
    return f"{type(value).__name__}{size}"


def _id(row: Any, number: int, reading: Reading) -> str:
    column = find(row, "id", reading.columns) if isinstance(row, Mapping) else None
    value = None if column is None else row[column]
    return str(value) if isinstance(value, str | int) else str(number)


def bad_row(
    row: Any, number: int, detail: str, reading: Reading, *, reason: str = "bad_row"
) -> Verdict:
    """Return the verdict of a row that could not be checked, with why in words."""
    return Verdict(
        trace_id=_id(row, number, reading),
        problem_id="",
        domain="",
        verdict="not_checked",
        reason=reason,
        extracted=None,
        expected=None,
        detail=detail,
        checker=NO_CHECKER,
        seconds=0.0,
    )
