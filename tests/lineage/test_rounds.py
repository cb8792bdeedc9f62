"""Traces of further rounds are told and counted like those of the first, with their round."""

import dataclasses
import io
from typing import Any

import pytest
from rich.console import Console

from cuvee.lineage.card_facts import card_facts, card_files
from cuvee.lineage.data_card import render_data_card
from cuvee.lineage.explain import explain
from cuvee.lineage.find import find_places
from cuvee.lineage.listing import list_run
from cuvee.lineage.requests import open_books
from cuvee.lineage.shelves import domain_shelf, shelves
from cuvee.lineage.tree import show
from cuvee.lineage.way import Way
from cuvee.recipe import parse_recipe
from cuvee.records import Trace, Verdict, write_rows
from cuvee.rounds.record import Round, round_file, write_round
from cuvee.runfolder import Run

from .conftest import Built, trace, verdict

FIRST = Round(
    number=1, asked=2, requests=5, failed=1, checked=3, right=2, fit=1, new_examples=1, examples=1,
    usd=0.5, tokens=90, next_asked=1, next_requests=1, next_expected=0.4, next_usd=0.1, stop="",
    why="1 problem is asked again",
)  # fmt: skip
SECOND = dataclasses.replace(
    FIRST, number=2, asked=1, requests=1, failed=0, checked=1, right=1, new_examples=0,
    next_asked=0, stop="too_few", why="0.1 new examples are expected",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Twice:
    """The run with a second of three rounds, and the trace of it."""

    run: Run
    late: Trace


@pytest.fixture
def twice(built: Built) -> Twice:
    data: dict[str, Any] = built.run.recipe.model_dump(mode="json")
    data["rounds"] = {"most": 3}
    run = Run(built.run.path, parse_recipe(data, where="the test"))
    late = trace(built.easy, "ann", 7, "It is \\boxed{2}.")
    for number in (2, 3):
        rows = [late] if number == 2 else []
        write_rows(run.traces("math", "ann", in_round=number), rows, Trace)
        said = [verdict(one, "correct", "equal", "2") for one in rows]
        write_rows(run.verdicts("math", in_round=number), said, Verdict)
        write_rows(run.traces("talk", "ann", in_round=number), [], Trace)
        write_rows(run.verdicts("talk", in_round=number), [], Verdict)
        write_rows(
            run.verdicts("talk", in_round=number).parent / "judge" / "talk.parquet", [], Trace
        )
    for name in ("math", "talk"):
        write_round(round_file(run, name, 1), FIRST)
        for number in (2, 3):
            write_round(round_file(run, name, number), SECOND)
    return Twice(run, late)


def ways(run: Run, wanted: str) -> list[Way]:
    with open_books(run) as books:
        return [explain(place, books) for place in find_places(shelves(run), wanted)]


def test_a_late_trace_is_found_and_told_with_its_round(twice: Twice, built: Built) -> None:
    [way] = ways(twice.run, twice.late.id)
    [step] = way.steps
    assert (step.in_round, step.asked.trace) == (2, twice.late)
    assert step.verdict is not None
    assert {s.id: s.in_round for s in way.siblings} == {
        built.chosen.id: 1, built.wrong.id: 1, built.published.id: 1,
    }  # fmt: skip
    console = Console(width=200, file=io.StringIO())
    with console.capture() as printed:
        console.print(show(way, full=False))
    assert f"trace {twice.late.id} by ann, sample 7, round 2" in printed.get()
    assert f"{built.chosen.id} ann, sample 0, round 1, stop" in printed.get()


def test_without_rounds_no_round_is_named(built: Built) -> None:
    [way] = ways(built.run, built.easy.id)
    assert {step.in_round for step in way.steps} == {None}


def test_a_problem_has_the_traces_of_all_rounds(twice: Twice, built: Built) -> None:
    [way] = ways(twice.run, built.easy.id)
    rounds = {step.asked.trace.id: step.in_round for step in way.steps}
    assert rounds[twice.late.id] == 2
    assert len(rounds) == 4


def test_the_list_adds_the_rounds_up(twice: Twice, built: Built) -> None:
    def counts(run: Run, teacher: str | None = None) -> dict[tuple[str, str, str | None], int]:
        found = list_run(shelves(run), domain="math", teacher=teacher).groups
        return {(g.stage, g.outcome, g.reason): g.count for g in found}

    before, after = counts(built.run), counts(twice.run)
    more = {key: after[key] - before[key] for key in after if after[key] != before[key]}
    assert more == {("teach", "ann", "stop"): 1, ("verify", "correct", "equal"): 1}
    assert counts(twice.run, "ann")["verify", "correct", "equal"] == 3
    assert counts(twice.run, "deep")["teach", "deep", "stop"] == 1


def test_the_files_are_those_of_the_run_and_what_is_published_is_of_the_first(twice: Twice) -> None:
    shelf = domain_shelf(twice.run, "math")
    assert set(shelf.trace_files) == set(twice.run.trace_files("math"))
    assert shelf.verdict_files == twice.run.verdict_files("math")
    assert len(shelf.traces["deep"]) == 1
    talk = domain_shelf(twice.run, "talk")
    assert [path.parent.parent.name for path in talk.judge] == ["03_verdicts", "round-2", "round-3"]


def test_what_a_round_has_not_written_yet_is_missing(twice: Twice, built: Built) -> None:
    twice.run.verdicts("math", in_round=3).unlink()
    [way] = ways(twice.run, built.easy.id)
    assert (
        "03_verdicts/round-3/math.parquet: not there yet; `cuvee verify` writes it" in way.missing
    )


def test_the_data_card_tells_the_rounds_that_were_begun(twice: Twice) -> None:
    text = render_data_card(card_facts(twice.run))
    assert (
        "- **math** was asked in 2 rounds: after the first only problems that were not solved, or "
        "not full. 2 problems brought 1 examples, then 1 problems brought 0 examples."
    ) in text
    assert round_file(twice.run, "math", 3) in card_files(twice.run)
