"""Problems from published files, hub data sets, generators and reasoning-gym.

In: a `Source` of the recipe. Out: `Loaded`: problems, the rows that were dropped with their
reasons, and how many rows `where` left out. Data sets are read as they are published: usual
column names are found (`COLUMNS`), GSM8K's `#### 18` and NuminaMath's `proof` and `notfound`
are known, and tests are brought into our forms (`cuvee.verify.code.published`).
Not here: duplicates, benchmarks' overlap, and whether a gold passes its own verifier.
"""

import dataclasses
import json
import math
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import Any

from cuvee.errors import DataError, RecipeError
from cuvee.problems import arithmetic, files, functions
from cuvee.problems.files import PlacedRow, Row
from cuvee.problems.items import Item
from cuvee.recipe import Source
from cuvee.records import Dropped, Problem, content_hash, dumps, problem_id
from cuvee.verify import columns
from cuvee.verify.code import published
from cuvee.verify.columns import choice_gold, math_gold, program_gold, text_of, with_choices

GENERATORS: dict[str, Callable[..., list[Item]]] = {
    "arithmetic": arithmetic.generate,
    "functions": functions.generate,
}
COLUMNS = {ours: columns.COLUMNS[ours] for ours in ("question", "gold", "tests")}
"""Names that a column is looked for under, in this order, where the recipe maps none."""

PROGRAMS = columns.COLUMNS["program"]
"""The same for the gold of a code problem, which is a reference program."""

NEED_GOLD = ("math", "choice", "judge")
"""Verifiers that cannot check an answer without a gold."""

SENTINELS = {"proof": "gold_is_proof", "notfound": "gold_is_notfound"}
"""NuminaMath's golds that are no answers, and the reason their rows are dropped for."""

META_CHARACTERS = 500
"""Longer texts of a row (solutions, traces) are not copied into `Problem.meta`."""


@dataclasses.dataclass(frozen=True)
class Asked:
    """How a source's items become problems: of which domain, checked and asked how."""

    domain: str
    verifier: str
    ask: Callable[[str], str]
    """Question -> user message (`Domain.ask`)."""


@dataclasses.dataclass(frozen=True)
class Loaded:
    """What a source gave."""

    problems: list[Problem]
    dropped: list[Dropped]
    filtered: int
    """Rows that `where` left out; counted alone, since they may be most of a data set."""


def load(source: Source, asked: Asked, *, limit: int | None) -> Loaded:
    """Return the first problems of a source, in its order, at most `count` and `limit`.

    Reading stops when that many problems are found, so dropped rows do not count against
    it. Raises RecipeError for a source or arguments that cannot be, DataError for a file or
    row that breaks its contract and where no row is left.
    """
    if unknown := sorted(set(source.columns) - set(COLUMNS)):
        raise RecipeError(f"{source.source}: columns maps {unknown}; known: {list(COLUMNS)}")
    most = min((n for n in (source.count, limit) if n is not None), default=None)
    kind, _, name = source.source.partition(":")
    if kind == "generator":
        return _from_items(source, asked, _generated(source, name, most))
    if kind == "gym":
        return _from_items(source, asked, _gym(source, name, most))
    return _from_rows(source, asked, most)


def _generated(source: Source, name: str, most: int | None) -> list[Item]:
    if name not in GENERATORS:
        raise RecipeError(f"generator:{name}: unknown; known: {', '.join(sorted(GENERATORS))}")
    return GENERATORS[name](_count(source, most), seed=source.seed, args=source.args)


def _gym(source: Source, name: str, most: int | None) -> list[Item]:
    """Return items of reasoning-gym; `answer` is the gold and is checked like any other.

    The gym's own scorer, whose partial credits are no measure of being right, is not used.
    """
    count = _count(source, most)
    try:
        import reasoning_gym
    except ImportError as error:
        raise RecipeError(
            f"{source.source}: needs reasoning-gym; `pip install 'cuvee[gym]'` "
            "(it compiles pycosat, so a C compiler is needed)"
        ) from error
    try:
        entries = reasoning_gym.create_dataset(name, size=count, seed=source.seed, **source.args)
    except (ValueError, TypeError, AssertionError) as error:
        raise RecipeError(f"{source.source}: {error}") from error
    return [
        Item(str(e["question"]), None if e["answer"] is None else str(e["answer"]), None, {})
        for e in entries
    ]


def _count(source: Source, most: int | None) -> int:
    if source.count is None or most is None:
        raise RecipeError(f"{source.source}: needs `count`: how many problems to make")
    return most


def _from_items(source: Source, asked: Asked, items: list[Item]) -> Loaded:
    if source.where or source.columns:
        raise RecipeError(f"{source.source}: where and columns are for files and hub data sets")
    rows = [_finish(item, source, asked, f"item {i}") for i, item in enumerate(items, start=1)]
    return _split(rows, filtered=0)


def _from_rows(source: Source, asked: Asked, most: int | None) -> Loaded:
    if source.args:
        raise RecipeError(f"{source.source}: args are for generators, got {sorted(source.args)}")
    found: list[Problem | Dropped] = []
    filtered, kept = 0, 0
    seen: dict[str, set[str]] = {column: set() for column in source.where}
    for place, row in _rows(source, most):
        if not _matches(row, place, source.where, seen):
            filtered += 1
            continue
        made = _from_row(row, place, source, asked)
        found.append(made)
        kept += isinstance(made, Problem)
        if kept == most:
            break
    if not found:
        values = {column: sorted(islice(v, 10)) for column, v in seen.items()}
        why = f"none matches where {source.where}; values seen: {values}" if filtered else "empty"
        raise DataError(f"{source.source}: no row left: {why}")
    return _split(found, filtered=filtered)


def _rows(source: Source, most: int | None) -> Iterator[PlacedRow]:
    if files.is_file(source.source):
        return files.read_file(files.local_path(source.source))
    files.require_known(source.source)
    return files.read_hub(source, streaming=most is not None)


def _split(rows: list[Problem | Dropped], *, filtered: int) -> Loaded:
    problems = [row for row in rows if isinstance(row, Problem)]
    return Loaded(problems, [row for row in rows if isinstance(row, Dropped)], filtered)


def _matches(row: Row, place: str, where: Mapping[str, Any], seen: Mapping[str, set[str]]) -> bool:
    """Return whether a row has the wanted values; `seen` collects what was found instead.

    A value matches if it is equal and of the same kind: "1" is not 1, and True is not 1.
    """
    for column, wanted in where.items():
        value = _cell(row, place, column)
        if value == wanted and isinstance(value, bool) == isinstance(wanted, bool):
            continue
        if len(seen[column]) < 10:
            seen[column].add(repr(value)[:60])
        return False
    return True


def _cell(row: Row, place: str, column: str) -> Any:
    if column not in row:
        raise DataError(f"{place}: no column {column!r}; it has {sorted(row)}")
    return row[column]


def _find(row: Row, place: str, source: Source, names: tuple[str, ...], ours: str) -> str:
    """Return the column that holds one of our fields. Raises DataError where there is none."""
    mapped = source.columns.get(ours)
    if mapped is not None:
        _cell(row, place, mapped)
        return mapped
    for name in names:
        if name in row:
            return name
    raise DataError(
        f"{place}: no column for {ours!r}: looked for {', '.join(names)}, the row has "
        f"{sorted(row)}; name it with `columns: {{{ours}: NAME}}`"
    )


def _has(row: Row, source: Source, names: tuple[str, ...], ours: str) -> bool:
    return ours in source.columns or any(name in row for name in names)


def _from_row(row: Row, place: str, source: Source, asked: Asked) -> Problem | Dropped:
    asks = _find(row, place, source, COLUMNS["question"], "question")
    used = {asks}
    question = text_of(row[asks])
    gold = tests = None
    names = PROGRAMS if asked.verifier == "code" else COLUMNS["gold"]
    if asked.verifier in NEED_GOLD or _has(row, source, names, "gold"):
        column = _find(row, place, source, names, "gold")
        used.add(column)
        gold = text_of(row[column])
        if asked.verifier == "choice":
            gold, question = choice_gold(row[column], row), with_choices(question, row)
            used.add("choices")
    if asked.verifier == "code":
        tests = published.from_row(row)
        if tests is None:
            column = _find(row, place, source, COLUMNS["tests"], "tests")
            used.add(column)
            tests = published.from_value(row[column])
        question, gold = _program(row, question, gold)
        question = _named(question, tests)
    meta = {name: value for name, value in row.items() if name not in used and _is_small(value)}
    return _finish(Item(question, gold, tests, meta), source, asked, place)


def _program(row: Row, question: str, gold: str | None) -> tuple[str, str | None]:
    """Return a code problem's question with what an answer must know, and its program.

    The question gets the starter code (OpenThoughts) or the tests that name the function
    (MBPP); HumanEval's canonical solution is only the body below its prompt.
    """
    program = gold and program_gold(gold, row, question)
    if "canonical_solution" in row and "entry_point" in row:
        return question, program
    if question and isinstance(row.get("test_list"), list):
        question += "\n\nYour code should pass these tests:\n" + "\n".join(row["test_list"])
    elif question and row.get("starter_code"):
        question += f"\n\nStart from this code:\n{row['starter_code']}"
    return question, program


def _named(question: str, tests: str | None) -> str:
    """Return the question with the function's name in it, where tests call it by name."""
    name = json.loads(tests).get("fn_name") if tests else None
    if not question or name is None or name in question:
        return question
    return f"{question}\n\nName the function `{name}`."


def _finish(item: Item, source: Source, asked: Asked, place: str) -> Problem | Dropped:
    """Return the item as a problem, or why it is none."""
    gold = item.gold or None
    reason = detail = None
    if asked.verifier == "math" and gold is not None:
        gold = math_gold(gold)
        reason = SENTINELS.get(gold.strip().lower())
    if not item.question.strip():
        reason = "no_question"
    elif asked.verifier in NEED_GOLD and gold is None:
        reason = "no_gold"
    elif asked.verifier == "code" and item.tests is None:
        reason, detail = "no_tests", "empty, or in no known form"
    if reason is not None:
        key = content_hash(source.source, place, item.question, gold)
        told = f"{place}: {detail}" if detail else place
        return Dropped(key, asked.domain, "problem", None, reason, told)
    return Problem(
        id=problem_id(item.question, gold, item.tests),
        domain=asked.domain,
        source=source.source,
        question=item.question,
        prompt=asked.ask(item.question),
        verifier=asked.verifier,
        gold=gold,
        tests=item.tests,
        meta=dumps(item.meta),
    )


def _is_small(value: Any) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, str):
        return len(value) <= META_CHARACTERS
    return isinstance(value, int)
