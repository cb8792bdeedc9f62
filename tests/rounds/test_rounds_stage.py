"""Rounds of a run, with scripted teachers: whom they ask, when they end, and going on."""

import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from cuvee.errors import BudgetError
from cuvee.pipeline import run_stages, stage_tasks, states
from cuvee.problems import arithmetic
from cuvee.recipe import dump_recipe, parse_recipe
from cuvee.records import Problem, Trace, Verdict, dumps, problem_id, read_rows, write_rows
from cuvee.rounds.record import read_rounds
from cuvee.runfolder import Run
from cuvee.teach.ledger import Ledger
from cuvee.verify.stage import judge_traces

PROBLEMS = 8
ASKING = ("teach", "verify")
ROUNDS = {"most": 4, "until": "solved", "samples": [2, 8], "min_examples": 0.01}
TWO = ROUNDS | {"most": 2, "samples": [2]}
ANN = {
    "name": "ann",
    "scripted": {"skill": 0.4, "faults": ["wrong_result", "no_answer"], "http_faults": 0.0},
    "usd_per_mtok": {"input": 1, "output": 4},
}


def a_run(path: Path, **changes: Any) -> Run:
    """Return a run of one domain, `sums`, with its problems; its ledger stands beside it."""
    domain = {"verifier": "math"} | changes.pop("domain", {})
    source = {"source": "generator:arithmetic", "count": PROBLEMS}
    values: dict[str, Any] = {
        "name": "test",
        "base": "random:two-layer",
        "ledger": str(path.with_suffix(".sqlite")),
        "domains": {"sums": {"problems": [source]} | domain},
        "teachers": [ANN],
        "rounds": ROUNDS,
    }
    values |= changes
    if values["rounds"] is None:
        del values["rounds"]
    run = Run(path, parse_recipe(values, where="test"))
    items = arithmetic.generate(PROBLEMS, seed=5, args={})
    problems = [
        Problem(
            id=problem_id(item.question, item.gold, None),
            domain="sums",
            source="generator:arithmetic",
            question=item.question,
            prompt=item.question,
            verifier=domain["verifier"],
            gold=item.gold,
            tests=None,
            meta=dumps(item.meta),
        )
        for item in items
    ]
    write_rows(run.problems("sums"), problems, Problem)
    return run


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = a_run(tmp_path_factory.mktemp("rounds") / "run")
    run_stages(run.recipe, run.path, ASKING)
    return run


def solved(run: Run, rounds: range) -> set[str]:
    """Return the problems with a right answer in some rounds."""
    files = [run.verdicts("sums", in_round=number) for number in rounds]
    rows = [row for file in files for row in read_rows(file, Verdict)]
    return {row.problem_id for row in rows if row.verdict == "correct"}


def test_problems_are_asked_until_they_are_solved_and_then_the_rounds_end(finished: Run) -> None:
    everything = {p.id for p in read_rows(finished.problems("sums"), Problem)}
    told = read_rounds(finished, "sums")
    assert [found.number for found in told] == [1, 2, 3], "of four that there might have been"
    assert told[-1].stop == "done"
    assert [found.examples for found in told][-1] == PROBLEMS
    for found in told[1:]:
        asked = {p.id for p in read_rows(finished.asked("sums", in_round=found.number), Problem)}
        assert asked == everything - solved(finished, range(1, found.number))
        assert found.asked == len(asked) < PROBLEMS
    assert solved(finished, range(1, 4)) == everything


def test_samples_rise_and_are_numbered_on_and_no_request_is_made_twice(finished: Run) -> None:
    files = finished.trace_files("sums")
    traces = [read_rows(file, Trace) for file in files]
    assert [sorted({t.sample for t in rows}) for rows in traces] == [
        [0],
        [1, 2],
        [3, 4, 5, 6, 7, 8, 9, 10],
        [],
    ]
    ids = [trace.id for rows in traces for trace in rows]
    assert len(set(ids)) == len(ids)


def test_what_is_told_of_a_round_is_what_its_files_hold(finished: Run) -> None:
    told = read_rounds(finished, "sums")
    for found, next_one in zip(told, [*told[1:], None], strict=True):
        traces = [
            t
            for file in finished.trace_files("sums", in_round=found.number)
            for t in read_rows(file, Trace)
        ]
        verdicts = read_rows(finished.verdicts("sums", in_round=found.number), Verdict)
        assert found.requests == len(traces) == len(verdicts)
        assert found.right == found.fit == sum(v.verdict == "correct" for v in verdicts)
        assert found.usd == pytest.approx(sum(t.usd or 0 for t in traces))
        assert found.next_asked == (next_one.asked if next_one else 0)
        if next_one:
            assert found.next_requests == next_one.requests
    assert sum(found.new_examples for found in told) == PROBLEMS


def test_a_second_run_does_nothing(finished: Run) -> None:
    assert run_stages(finished.recipe, finished.path, ASKING).done == 0
    found = [s for s in states(finished.recipe, finished.path) if s.key.split("/")[0] in ASKING]
    assert {s.state for s in found} == {"done"}
    assert len(found) == 1 + 1 + 4 + 3 * 2


def test_without_rounds_the_tasks_are_what_they_were(tmp_path: Path) -> None:
    run = a_run(tmp_path / "run", rounds=None)
    with ExitStack() as resources:
        keys = [t.key for stage in ASKING for t in stage_tasks(run, stage, resources)]
        again = a_run(tmp_path / "run")
        first = [
            t.settings
            for stage in ASKING
            for t in stage_tasks(again, stage, resources)
            if t.key in keys
        ]
        plain = [t.settings for stage in ASKING for t in stage_tasks(run, stage, resources)]
    assert keys == ["teach/sums/ann", "verify/sums"]
    assert first == plain, "adding rounds to a finished run asks nothing of its first one again"


def rows_without_times(run: Run) -> dict[str, list[dict[str, Any]]]:
    found = {}
    for file in sorted(run.path.rglob("*.parquet")):
        table = pq.read_table(file)
        kept = [name for name in table.column_names if name != "seconds"]
        found[str(file.relative_to(run.path))] = table.select(kept).to_pylist()
    return found


def test_killed_between_and_within_waves_it_ends_with_the_same_rows(
    finished: Run, tmp_path: Path
) -> None:
    run = a_run(tmp_path / "run")
    run_stages(run.recipe, run.path, ("teach",))
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(dump_recipe(run.recipe))
    for line in ("teach/round-2/sums/ann", "verify/round-2/sums"):
        command = [sys.executable, "-m", "cuvee.cli", "verify", str(recipe), "--out", str(run.path)]
        killed = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        with killed:
            assert killed.stderr is not None
            assert any(line in printed for printed in killed.stderr)
            killed.send_signal(signal.SIGKILL)
        assert killed.returncode == -signal.SIGKILL
    run_stages(run.recipe, run.path, ASKING)
    assert rows_without_times(run) == rows_without_times(finished)
    with Ledger.open(run.recipe.ledger) as one, Ledger.open(finished.recipe.ledger) as other:
        assert one.count_answers() == other.count_answers()


def test_the_budget_ends_a_round_and_a_larger_one_goes_on_with_it(tmp_path: Path) -> None:
    run = a_run(tmp_path / "run", rounds=TWO, budget={"requests": PROBLEMS + 3})
    with pytest.raises(BudgetError) as caught:
        run_stages(run.recipe, run.path, ASKING)
    assert caught.value.exit_code == 3
    larger = a_run(tmp_path / "run", rounds=TWO, budget={"requests": 1000})
    run_stages(larger.recipe, run.path, ASKING)
    told = read_rounds(larger, "sums")
    with Ledger.open(run.recipe.ledger) as ledger:
        assert ledger.spent(run.account()).total.requests == sum(r.requests for r in told)


def test_a_judge_decides_in_every_round_and_its_cost_counts(tmp_path: Path) -> None:
    judge = {"name": "jo", "domains": [], "scripted": {"http_faults": 0.0}}
    priced = judge | {"usd_per_mtok": {"input": 1, "output": 1}}
    unpriced = {key: value for key, value in ANN.items() if key != "usd_per_mtok"}
    run = a_run(
        tmp_path / "run",
        domain={"verifier": "judge", "judge": "jo"},
        teachers=[unpriced, priced],
        rounds=TWO,
    )
    run_stages(run.recipe, run.path, ASKING)
    first, second = read_rounds(run, "sums")
    judged = read_rows(judge_traces(run, "sums", in_round=2), Trace)
    assert judged
    assert second.usd == pytest.approx(sum(trace.usd or 0 for trace in judged))
    assert first.next_usd is not None
    assert first.next_usd > 0


def test_a_judge_with_a_price_who_was_never_asked_has_cost_nothing(tmp_path: Path) -> None:
    judge: dict[str, Any] = {"name": "jo", "domains": [], "scripted": {"http_faults": 0.0}}
    judge |= {"usd_per_mtok": {"input": 1, "output": 1}}
    mute = {"skill": 0.0, "faults": ["truncated"], "http_faults": 0.0}
    run = a_run(
        tmp_path / "run",
        domain={"verifier": "judge", "judge": "jo"},
        teachers=[{"name": "ann", "scripted": mute}, judge],
        rounds=TWO | {"usd_per_example": 0.5},
    )
    run_stages(run.recipe, run.path, ASKING)
    first = read_rounds(run, "sums")[0]
    judged = read_rows(judge_traces(run, "sums", in_round=1), Trace)
    assert (judged, first.usd, first.next_usd) == ([], 0.0, 0.0)
    assert first.stop == ""
