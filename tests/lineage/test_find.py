"""An id, or its beginning, is found wherever it stands; what is not found says what is near."""

import dataclasses

import pytest

from cuvee.errors import DataError
from cuvee.lineage.find import Place, find_places
from cuvee.lineage.shelves import open_run, shelves
from cuvee.records import Problem, write_rows
from cuvee.runfolder import Run

from .conftest import Built


def where(run: Run, wanted: str) -> list[tuple[str, str, str]]:
    return [(p.kind, p.shelf.kind, p.shelf.name) for p in places(run, wanted)]


def places(run: Run, wanted: str) -> list[Place]:
    return find_places(shelves(open_run(run.path)), wanted)


def test_every_kind_of_id_is_found(built: Built) -> None:
    assert where(built.run, built.easy.id) == [("problem", "domain", "math")]
    assert where(built.run, built.chosen.id) == [("trace", "domain", "math")]
    assert where(built.run, built.published.id) == [("trace", "domain", "math")]
    assert where(built.run, built.judge.id) == [("judge", "domain", "talk")]
    assert where(built.run, "feed" * 4) == [("problem", "domain", "math")]


def test_a_benchmark_item_is_found_where_it_was_dropped_too(built: Built) -> None:
    assert where(built.run, built.taken.id) == [
        ("problem", "domain", "math"),
        ("problem", "benchmark", "sums"),
    ]


def test_a_unique_beginning_is_enough_and_one_that_is_not_names_the_ids(built: Built) -> None:
    problems = [
        dataclasses.replace(built.easy, id=name) for name in ("abcd0000", "abcd0001", "abcd")
    ]
    write_rows(built.run.problems("math"), problems, Problem)
    assert [p.id for p in places(built.run, "abcd0001")] == ["abcd0001"]
    assert [p.id for p in places(built.run, "abcd")] == ["abcd"], "exactly that id wins"
    with pytest.raises(DataError, match=r"'abcd0' begins 2 ids: abcd0000 \(problem of math\), "):
        places(built.run, "abcd0")


def test_only_the_first_of_many_ids_are_named(built: Built) -> None:
    problems = [dataclasses.replace(built.easy, id=f"abcd{n:04}") for n in range(2000)]
    write_rows(built.run.problems("math"), problems, Problem)
    with pytest.raises(DataError, match=r"begins 2,000 ids: .* and 1,992 more; give more of it$"):
        places(built.run, "abcd")


def test_an_unknown_id_says_what_is_near(built: Built) -> None:
    typo = built.chosen.id[:9] + "!"
    with pytest.raises(DataError, match=f"the first 9 characters are those of {built.chosen.id}"):
        places(built.run, typo)
    with pytest.raises(DataError, match=r"no id begins with '!\?', or .*\d+ ids searched"):
        places(built.run, "!?")
    with pytest.raises(DataError, match="empty id"):
        places(built.run, "")
    with pytest.raises(DataError, match=r"no id begins with '\\x1b\[2J'"):
        places(built.run, "\x1b[2J")


def test_a_run_without_rows_says_so(built: Built) -> None:
    for shelf in shelves(built.run):
        for path in (shelf.problems, shelf.problems_dropped, *shelf.trace_files):
            path.unlink(missing_ok=True)
    (built.run.folder("verify") / "judge" / "talk.parquet").unlink()
    with pytest.raises(DataError, match="no problems yet; `cuvee problems` loads them"):
        places(built.run, "abc")
