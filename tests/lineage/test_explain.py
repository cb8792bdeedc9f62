"""The whole way is told, from whichever id one starts, and also of a run that is half way."""

import dataclasses
import io
import itertools
import json
import shutil
from pathlib import Path

import pytest
from rich.console import Console

from cuvee.errors import DataError, RecipeError
from cuvee.lineage.explain import explain
from cuvee.lineage.find import find_places
from cuvee.lineage.requests import open_books
from cuvee.lineage.shelves import open_run, shelves
from cuvee.lineage.tree import show
from cuvee.lineage.way import Step, Way
from cuvee.recipe import parse_recipe
from cuvee.runfolder import FOLDERS, Run

from .conftest import Built


def ways(run: Run, wanted: str, teacher: str | None = None) -> list[Way]:
    opened = open_run(run.path)
    with open_books(opened) as books:
        found = find_places(shelves(opened), wanted)
        return [explain(place, books, teacher=teacher) for place in found]


def steps(way: Way) -> dict[str, Step]:
    return {step.asked.trace.id: step for step in way.steps}


def test_a_chosen_trace_is_told_from_its_row_to_the_training_set(built: Built) -> None:
    [way] = ways(built.run, built.chosen.id)
    assert way.problem == built.easy
    assert way.problem.place == "train.parquet, row 18"
    [source] = way.sources
    assert (source.revision, source.licence) == ("0123abcd", "apache-2.0")
    [step] = way.steps
    assert step.asked.trace == built.chosen
    request = step.asked.request
    assert request is not None
    assert (request.seed, request.sample, request.own) == (5, 0, True)
    assert (request.prompt_tokens, request.completion_tokens) == (12, 30)
    assert request.usd == pytest.approx(0.000072)
    assert request.sampling["max_tokens"] == 64
    assert step.verdict is not None
    assert (step.verdict.verdict, step.verdict.extracted) == ("correct", "2")
    assert {decision.outcome for decision in step.decisions} == {"passed"}
    assert (step.chosen, step.tokens, step.too_long) == (True, 31, None)


def test_the_other_traces_of_a_problem_are_told_in_short(built: Built) -> None:
    [way] = ways(built.run, built.wrong.id)
    assert {s.id: (s.verdict, s.end) for s in way.siblings} == {
        built.chosen.id: ("correct: equal", "chosen"),
        built.published.id: ("correct: equal", "not_chosen"),
    }


def test_a_problem_is_told_with_all_its_traces_or_those_of_a_teacher(built: Built) -> None:
    [way] = ways(built.run, built.easy.id)
    assert set(steps(way)) == {built.chosen.id, built.wrong.id, built.published.id}
    assert way.siblings == ()
    [way] = ways(built.run, built.easy.id, teacher="deep")
    assert set(steps(way)) == {built.published.id}
    assert {s.id for s in way.siblings} == {built.chosen.id, built.wrong.id}
    with pytest.raises(RecipeError, match=r"--teacher jan: none of domain math; .*'ann', 'deep'"):
        ways(built.run, built.easy.id, teacher="jan")


def test_a_published_trace_and_a_failed_one_have_no_request(built: Built) -> None:
    [way] = ways(built.run, built.published.id)
    assert way.steps[0].asked.no_request == "published: nothing was asked"
    [way] = ways(built.run, built.failed.id)
    assert "the request failed" in str(way.steps[0].asked.no_request)


def test_a_kept_problem_tells_that_copies_of_it_were_dropped(built: Built) -> None:
    [way] = ways(built.run, built.easy.id)
    assert [row.reason for row in way.drops] == ["exact_duplicate"]


def test_a_contaminated_problem_is_told_in_the_domain_and_in_the_benchmark(built: Built) -> None:
    dropped, held_out = ways(built.run, built.taken.id)
    assert dropped.problem is None
    assert [row.reason for row in dropped.drops] == ["in_benchmark"]
    assert held_out.problem is not None
    assert (held_out.stands_in, held_out.name) == ("benchmark", "sums")
    [step] = held_out.steps
    assert (step.asked.trace.model, step.chosen, step.decisions) == ("base", None, ())


def test_a_judge_s_answer_leads_to_the_trace_it_judged_and_back(built: Built) -> None:
    [way] = ways(built.run, built.judge.id)
    assert way.kind == "judge"
    assert way.problem == built.talk
    assert [step.asked.trace.id for step in way.steps] == [built.judged.id]
    assert [asked.trace.id for asked in way.steps[0].judged] == [built.judge.id]


def test_an_example_too_long_for_training_is_said_to_be_left_out(built: Built) -> None:
    folder = built.run.specialist("math")
    folder.mkdir(parents=True)
    (folder / "preflight.json").write_text(f'{{"dropped_too_long": ["{built.chosen.id}"]}}')
    [way] = ways(built.run, built.easy.id)
    assert steps(way)[built.chosen.id].too_long is True
    assert steps(way)[built.wrong.id].too_long is None
    assert steps(way)[built.chosen.id].held_out is False
    for broken in ("{", "[]", "{}", '{"dropped_too_long": [], "findings": [{"level": "note"}]}'):
        (folder / "preflight.json").write_text(broken)
        with pytest.raises(DataError, match=r"preflight\.json: not the findings of a preflight"):
            ways(built.run, built.easy.id)


def test_an_example_held_out_of_training_is_said_to_be_measured_alone(built: Built) -> None:
    folder = built.run.specialist("math")
    folder.mkdir(parents=True)
    said = {"dropped_too_long": [], "held_out_ids": [built.chosen.id]}
    (folder / "preflight.json").write_text(json.dumps(said))
    [way] = ways(built.run, built.chosen.id)
    step = steps(way)[built.chosen.id]
    assert (step.held_out, step.too_long) == (True, False)
    console = Console(width=200, file=io.StringIO())
    with console.capture() as printed:
        console.print(show(way, full=False))
    assert "held out: training measured the loss on it and did not learn it" in printed.get()


def test_the_mixture_s_answers_to_a_benchmark_are_among_its_traces(built: Built) -> None:
    mixed = built.run.recipe.model_copy(update={"baseline": "mixture"})
    [shelf] = [s for s in shelves(Run(built.run.path, mixed)) if s.kind == "benchmark"]
    assert shelf.traces["mixture"] == (built.run.score_traces("mixture", shelf.name),)
    assert list(shelf.traces)[-2:] == ["mixture", "merged"]


@pytest.mark.parametrize("last", list(FOLDERS)[:4])
def test_a_run_half_way_tells_what_there_is(built: Built, last: str) -> None:
    later = list(itertools.dropwhile(lambda stage: stage != last, FOLDERS))[1:]
    for stage in later:
        shutil.rmtree(built.run.folder(stage), ignore_errors=True)
    wanted = built.easy.id if last == "problems" else built.chosen.id
    [way] = ways(built.run, wanted)
    assert way.problem == built.easy
    assert (way.steps == ()) is (last == "problems")
    for step in way.steps:
        assert (step.verdict is None) is (last == "teach")
        assert (step.chosen is None) is (last != "select")
    named = {line.rpartition("`cuvee ")[2].split("`")[0] for line in way.missing}
    assert named == {stage for stage in later if stage in ("teach", "verify", "select", "train")}


def test_no_single_file_that_is_missing_makes_it_fail(built: Built) -> None:
    files = [path for path in built.run.path.rglob("*") if path.suffix in (".parquet", ".json")]
    assert len(files) > 15
    for path in files:
        kept = path.read_bytes()
        path.unlink()
        if "traces" not in path.parts[-3] or path.stem != "ann":
            assert ways(built.run, built.easy.id[:15]), path
        path.write_bytes(kept)


def test_explaining_writes_nothing(built: Built) -> None:
    Path(built.run.recipe.ledger).unlink()
    before = {path: path.stat().st_mtime_ns for path in built.run.path.parent.rglob("*")}
    (built.run.path / "account.txt").unlink()
    [way] = ways(built.run, built.chosen.id)
    after = {path: path.stat().st_mtime_ns for path in built.run.path.parent.rglob("*")}
    assert set(before) - set(after) == {built.run.path / "account.txt"}
    assert set(after) <= set(before)
    assert "no ledger at" in str(way.steps[0].asked.no_request)


def test_an_answer_that_another_run_bought_is_said_to_be_another_s(built: Built) -> None:
    (built.run.path / "account.txt").write_text("0" * 16 + "\n")
    [way] = ways(built.run, built.chosen.id)
    request = way.steps[0].asked.request
    assert request is not None
    assert not request.own
    assert len(request.account) == 16


def test_without_a_record_of_sources_the_recipe_speaks_and_guesses_nothing(built: Built) -> None:
    [way] = ways(built.run, built.talk.id)
    [source] = way.sources
    assert (source.recorded, source.licence, source.revision) == (False, "CC-BY-4.0", None)
    built.run.sources("math").write_text('[{"source": 3}]')
    with pytest.raises(DataError, match=r"math\.json: not a record of sources"):
        ways(built.run, built.easy.id)


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="not the folder of a run"):
        open_run(tmp_path)


def test_all_of_a_way_is_json(built: Built) -> None:
    for wanted in (built.easy.id, built.hostile.id, built.judge.id, built.taken.id):
        for way in ways(built.run, wanted):
            assert json.loads(json.dumps(dataclasses.asdict(way)))["id"] == wanted


def test_the_shelves_name_the_files_that_the_stages_write(built: Built) -> None:
    from cuvee.select.refine.task import chosen_file, refined_file, refiner_traces
    from cuvee.select.stage import votes_file
    from cuvee.teach.grading import grade_traces, grades_file
    from cuvee.verify.stage import judge_traces

    data = built.run.recipe.model_dump(mode="json")
    data["domains"]["math"]["select"]["agreement"] = 0.6
    data["domains"]["math"] |= {"refine": {"teacher": "jan"}, "rubric": {"teacher": "jan"}}
    run = Run(built.run.path, parse_recipe(data, where="the test"))
    by_name = {shelf.name: shelf for shelf in shelves(run)}
    assert by_name["math"].votes == votes_file(run, "math")
    assert by_name["talk"].judge == (judge_traces(run, "talk"),)
    assert (by_name["talk"].grades, by_name["talk"].refined) == (None, None)
    math = by_name["math"]
    assert (math.chosen, math.refined, math.refiner) == (
        chosen_file(run, "math"),
        refined_file(run, "math"),
        refiner_traces(run, "math"),
    )
    assert (math.grades, math.grader) == (grades_file(run, "math"), grade_traces(run, "math"))


def test_a_vote_is_told_with_its_problem(built: Built) -> None:
    data = built.run.recipe.model_dump(mode="json")
    data["domains"]["math"]["select"]["agreement"] = 0.6
    (built.run.path / "recipe.yaml").write_text(json.dumps(data))
    file = built.run.folder("select") / "votes" / "math.jsonl"
    file.parent.mkdir()
    votes = [
        {"problem_id": "x", "outcome": "tied_vote", "answer": built.easy.id},
        {"problem_id": built.easy.id, "outcome": "voted", "answer": "2", "agree": 2, "traces": 3},
    ]
    file.write_text("".join(json.dumps(vote) + "\n" for vote in votes))
    [way] = ways(built.run, built.chosen.id)
    assert way.vote == votes[1]
    file.write_text(f"{{ {built.easy.id}")
    with pytest.raises(DataError, match=r"math\.jsonl: not JSON"):
        ways(built.run, built.chosen.id)


def test_a_ledger_that_cannot_be_read_is_said_and_stops_nothing(built: Built) -> None:
    Path(built.run.recipe.ledger).write_bytes(b"no SQLite file, but longer than its header" * 99)
    [way] = ways(built.run, built.chosen.id)
    assert "not looked up:" in str(way.steps[0].asked.no_request)
    assert way.steps[0].chosen
