"""The listing counts every row of a run once a stage, and narrows by what is asked."""

import shutil
from collections import Counter

import pytest

from cuvee.errors import RecipeError
from cuvee.lineage.listing import FIRST, Listing, list_run
from cuvee.lineage.shelves import open_run, shelves
from cuvee.records import Dropped, read_rows, write_rows

from .conftest import Built


def listed(built: Built, **narrowed: str) -> Listing:
    return list_run(shelves(open_run(built.run.path)), **narrowed)


def outcomes(listing: Listing, domain: str = "math") -> dict[tuple[str, str, str | None], int]:
    groups = [group for group in listing.groups if group.domain == domain]
    return {(group.stage, group.outcome, group.reason): group.count for group in groups}


def test_every_row_is_counted_once_a_stage(built: Built) -> None:
    assert outcomes(listed(built)) == {
        ("problems", "kept", None): 2,
        ("problems", "dropped", "in_benchmark"): 1,
        ("problems", "dropped", "exact_duplicate"): 1,
        ("problems", "dropped", "no_question"): 1,
        ("teach", "ann", "stop"): 3,
        ("teach", "ann", "error"): 1,
        ("teach", "deep", "stop"): 1,
        ("verify", "correct", "equal"): 3,
        ("verify", "wrong", "different"): 1,
        ("verify", "not_checked", "request_failed"): 1,
        ("select", "chosen", None): 1,
        ("select", "dropped", "verdict_wrong"): 1,
        ("select", "dropped", "repetition"): 1,
        ("select", "dropped", "request_failed"): 1,
        ("select", "dropped", "not_chosen"): 1,
    }
    stages = Counter[str]()
    for group in listed(built, domain="math").groups:
        stages[group.stage] += group.count
    assert stages["teach"] == stages["verify"] == stages["select"] == 5


def test_a_teacher_s_groups_are_its_own_traces_alone(built: Built) -> None:
    assert outcomes(listed(built, teacher="deep")) == {
        ("teach", "deep", "stop"): 1,
        ("verify", "correct", "equal"): 1,
        ("select", "dropped", "not_chosen"): 1,
    }


def test_a_reason_is_that_of_a_drop_a_verdict_or_an_outcome(built: Built) -> None:
    [group] = listed(built, reason="repetition").groups
    assert group.ids == (built.hostile.id,)
    assert {g.domain for g in listed(built, reason="chosen").groups} == {"math", "talk"}
    assert [g.ids for g in listed(built, reason="wrong").groups] == [(built.wrong.id,)]
    assert {g.stage for g in listed(built, reason="request_failed").groups} == {"verify", "select"}


def test_more_ids_are_named_where_a_reason_is_asked_for(built: Built) -> None:
    file = built.run.dropped("select", "math")
    rows = [Dropped(f"{n:016x}", "math", "trace", "ann", "too_long", None) for n in range(50)]
    write_rows(file, [*read_rows(file, Dropped), *rows], Dropped)
    by_reason = {g.reason: g for g in listed(built).groups if g.stage == "select"}
    assert (by_reason["too_long"].count, len(by_reason["too_long"].ids)) == (50, FIRST)
    [group] = listed(built, reason="too_long").groups
    assert group.ids == tuple(row.id for row in rows[:20])


@pytest.mark.parametrize(
    ("narrowed", "message"),
    [({"domain": "sums"}, "--domain sums: not in this run; there are: math, talk"),
     ({"teacher": "jan"}, "--teacher jan: not in this run; there are: ann, deep"),
     ({"reason": "\x1b"}, r"--reason \\x1b: not in this run; there are: chosen, ")],
)  # fmt: skip
def test_names_that_are_none_are_refused_with_those_there_are(
    built: Built, narrowed: dict[str, str], message: str
) -> None:
    with pytest.raises(RecipeError, match=message):
        listed(built, **narrowed)


def test_a_run_half_way_lists_what_there_is_and_what_is_missing(built: Built) -> None:
    shutil.rmtree(built.run.folder("verify"))
    shutil.rmtree(built.run.folder("select"))
    listing = listed(built)
    assert {group.stage for group in listing.groups} == {"problems", "teach"}
    assert "03_verdicts/talk.parquet: not there yet; `cuvee verify` writes it" in listing.missing
    shutil.rmtree(built.run.folder("teach"))
    shutil.rmtree(built.run.folder("problems"))
    assert listed(built).groups == ()
    with pytest.raises(RecipeError, match="--reason chosen: not in this run; there are: none yet"):
        listed(built, reason="chosen")
