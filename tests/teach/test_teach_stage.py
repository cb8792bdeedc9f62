"""The stage `teach`: teachers of a recipe, run folders, the ledger between runs."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from aiohttp import web
from safetensors.torch import load_file, save_file

from cuvee.errors import DataError, RecipeError, TeacherError
from cuvee.models.checkpoint import resolve
from cuvee.records import Problem, Trace, read_rows, write_rows
from cuvee.runfolder import Run, Task, execute, is_done, is_incomplete, read_manifest
from cuvee.teach.client import request_seed
from cuvee.teach.endpoints import find_teacher
from cuvee.teach.ledger.carry import export
from cuvee.teach.ledger.survey import Chosen
from cuvee.teach.stage import tasks

from .conftest import Behaviour, Body, Loopback, answer_well, content_of
from .runs import a_run, problems, remote, scripted

Serve = Callable[[Behaviour], Loopback]


Work = Callable[[Run], dict[str, dict[str, Any]]]


@pytest.fixture
def work() -> Work:
    """Do what is not done of a run's teach stage, as the pipeline does; return the counts."""

    def run_stage(run: Run) -> dict[str, dict[str, Any]]:
        counts = {}
        with ExitStack() as resources:
            for task in tasks(run, resources):
                if not is_done(run, task, read_manifest(run.path)):
                    counts[task.name] = dict(execute(run, task))
        return counts

    return run_stage


def test_every_problem_is_asked_every_sample_in_order(
    serve: Serve, tmp_path: Path, work: Work
) -> None:
    server = serve(answer_well)
    run = a_run(tmp_path, [remote(server, samples=3)])
    counts = work(run)
    assert set(counts) == {"math/alice", "more/alice"}
    asked = read_rows(run.problems("math"), Problem)
    traces = read_rows(run.traces("math", "alice"), Trace)
    assert [(t.problem_id, t.sample) for t in traces] == [
        (p.id, sample) for p in asked for sample in range(3)
    ]
    assert [t.answer for t in traces] == [
        str(request_seed(42, p.id, sample)) for p in asked for sample in range(3)
    ]
    assert counts["math/alice"] == {
        "traces": 18,
        "sent": 18,
        "from_ledger": 0,
        "failed": 0,
        "refused": 0,
        "truncated": 0,
        "prompt_tokens": 18 * 11,
        "completion_tokens": 18 * 22,
        "possibly_billed_twice": 0,
    }
    assert work(run) == {}


def test_another_run_folder_sends_nothing_and_writes_the_same_bytes(
    serve: Serve, tmp_path: Path, work: Work
) -> None:
    server = serve(answer_well)
    first = a_run(tmp_path, [remote(server)])
    second = a_run(tmp_path, [remote(server)], folder="second")
    work(first)
    sent = len(server.bodies)
    counts = work(second)
    assert len(server.bodies) == sent
    assert [c["from_ledger"] for c in counts.values()] == [6, 6]
    names = [run.traces("more", "alice").read_bytes() for run in (first, second)]
    assert names[0] == names[1]


def with_answers(run: Run, file: Path) -> Run:
    return Run(run.path, run.recipe.model_copy(update={"answers": [str(file)]}))


def test_recorded_answers_are_replayed_and_nothing_is_sent(
    serve: Serve, tmp_path: Path, work: Work
) -> None:
    server = serve(answer_well)
    bought = a_run(tmp_path, [remote(server)])
    work(bought)
    recorded = tmp_path / "answers.parquet"
    ledger = tmp_path / "ledger.sqlite"
    export(ledger, recorded, chosen=Chosen(), note="", tick=lambda n: None)
    sent = len(server.bodies)
    replayed = with_answers(a_run(tmp_path / "elsewhere", [remote(server)]), recorded)
    counts = work(replayed)
    assert len(server.bodies) == sent
    assert [(c["sent"], c["from_ledger"]) for c in counts.values()] == [(0, 6), (0, 6)]
    files = [run.traces("math", "alice").read_bytes() for run in (bought, replayed)]
    assert files[0] == files[1]


def test_recorded_answers_that_are_not_sound_stop_before_anything_is_sent(
    serve: Serve, tmp_path: Path, work: Work
) -> None:
    server = serve(answer_well)
    work(a_run(tmp_path, [remote(server)]))
    recorded = tmp_path / "answers.parquet"
    ledger = tmp_path / "ledger.sqlite"
    export(ledger, recorded, chosen=Chosen(), note="", tick=lambda n: None)
    table = pq.read_table(recorded)
    column = table.schema.get_field_index("request")
    forged = [text.replace("math", "maths") for text in table["request"].to_pylist()]
    pq.write_table(table.set_column(column, table.field(column), [forged]), recorded)
    sent = len(server.bodies)
    with pytest.raises(DataError, match="no sound answers"):
        work(with_answers(a_run(tmp_path / "elsewhere", [remote(server)]), recorded))
    assert len(server.bodies) == sent


def settings_of(run: Run) -> dict[str, Any]:
    with ExitStack() as resources:
        return {task.name: task.settings for task in tasks(run, resources)}


def test_what_cannot_change_an_answer_does_not_ask_again(serve: Serve, tmp_path: Path) -> None:
    server = serve(answer_well)
    plain = settings_of(a_run(tmp_path, [remote(server)]))
    indifferent = {
        "concurrency": 3,
        "timeout": 5,
        "deadline": 50,
        "stream": True,
        "usd_per_mtok": {"input": 1, "output": 2},
        "retries": 0,
        "terms": "MIT",
        "key_env": "K",
        "domains": ["math", "more"],
    }
    assert settings_of(a_run(tmp_path, [remote(server, **indifferent)])) == plain
    assert settings_of(a_run(tmp_path, [remote(server, samples=2)])) != plain
    assert settings_of(a_run(tmp_path, [remote(server, system="Be brief.")])) != plain
    assert settings_of(a_run(tmp_path, [remote(server, sampling={"max_tokens": 9})])) != plain


def test_a_teacher_of_one_domain_has_one_task_and_all_its_domains_come_in_a_row(
    serve: Serve, tmp_path: Path
) -> None:
    server = serve(answer_well)
    teachers = [remote(server), remote(server, name="carol", domains=["more"])]
    assert list(settings_of(a_run(tmp_path, teachers))) == [
        "math/alice",
        "more/alice",
        "more/carol",
    ]


def test_a_refused_request_is_a_row_and_a_warning_and_not_asked_again(
    serve: Serve, tmp_path: Path, work: Work, capfd: pytest.CaptureFixture[str]
) -> None:
    async def one_fails(request: web.Request, body: Body, tries: int) -> web.StreamResponse:
        if len(server.bodies) == 3:
            return web.json_response({"error": "too long"}, status=400)
        return await answer_well(request, body, tries)

    server = serve(one_fails)
    run = a_run(tmp_path, [remote(server)])
    counts = work(run)
    assert (counts["math/alice"]["failed"], counts["math/alice"]["refused"]) == (1, 1)
    errors = [t.error for t in read_rows(run.traces("math", "alice"), Trace) if t.error]
    assert errors == ["HTTP 400: too long"]
    said = capfd.readouterr().err
    assert "math/alice: the server refused 1 of 6 requests for good" in said
    assert "HTTP 400: too long" in said
    assert work(run) == {}


def test_requests_that_failed_for_now_are_asked_again_by_the_next_run(
    serve: Serve, tmp_path: Path, work: Work, capfd: pytest.CaptureFixture[str]
) -> None:
    broken = True

    async def one_fails(request: web.Request, body: Body, tries: int) -> web.StreamResponse:
        if broken and "more" in content_of(body) and len(server.bodies) % 4 == 0:
            return web.json_response({"error": "boiler room"}, status=500)
        return await answer_well(request, body, tries)

    server = serve(one_fails)
    run = a_run(tmp_path, [remote(server, retries=0, concurrency=1)])
    counts = work(run)
    failed = counts["more/alice"]["failed"]
    assert 0 < failed < 6
    assert f"more/alice: {failed} of 6 requests failed" in capfd.readouterr().err
    entries = read_manifest(run.path)
    assert not is_incomplete(entries["teach/math/alice"])
    assert is_incomplete(entries["teach/more/alice"])
    broken = False
    again = work(run)
    assert set(again) == {"more/alice"}
    assert (again["more/alice"]["sent"], again["more/alice"]["from_ledger"]) == (failed, 6 - failed)
    assert work(run) == {}


def test_if_everything_failed_the_stage_fails_with_the_reason_and_writes_nothing(
    serve: Serve, tmp_path: Path, work: Work
) -> None:
    async def refuse(request: web.Request, body: Body, tries: int) -> web.StreamResponse:
        return web.json_response({"error": "unknown parameter: seed"}, status=400)

    run = a_run(tmp_path, [remote(serve(refuse))])
    with pytest.raises(TeacherError, match=r"all 6 requests failed.*unknown parameter: seed"):
        work(run)
    assert not run.traces("math", "alice").exists()


def test_no_problems_is_an_error_with_the_file(serve: Serve, tmp_path: Path, work: Work) -> None:
    run = a_run(tmp_path, [remote(serve(answer_well))])
    write_rows(run.problems("math"), [], Problem)
    with pytest.raises(DataError, match=r"math\.parquet: no problems"):
        work(run)


def test_a_later_teachers_missing_key_is_said_before_the_first_is_asked(
    serve: Serve, tmp_path: Path, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("BOBS_KEY", raising=False)
    server = serve(answer_well)
    teachers = [remote(server), remote(server, name="bob", key_env="BOBS_KEY")]
    with pytest.raises(RecipeError, match=r"bob.*BOBS_KEY"):
        work(a_run(tmp_path, teachers))
    assert server.bodies == []


@pytest.mark.parametrize("url", ["http://me:pw@host/v1", "https://host/v1?key=1", "http://"])
def test_a_url_that_holds_secrets_or_no_host_is_refused(
    tmp_path: Path, work: Work, url: str
) -> None:
    teacher = {"name": "alice", "url": url, "model": "m"}
    with pytest.raises(RecipeError, match="alice: url"):
        work(a_run(tmp_path, [teacher]))


def test_scripted_teachers_answer_over_http_and_end_with_the_stage(
    tmp_path: Path, work: Work
) -> None:
    run = a_run(tmp_path, [scripted(), scripted(style="terse") | {"name": "terse"}])
    counts = work(run)
    assert len(counts) == 4
    traces = read_rows(run.traces("math", "bob"), Trace)
    assert {t.finish_reason for t in traces} == {"stop"}
    assert all(t.fingerprint and t.fingerprint.startswith("scripted/") for t in traces)
    assert len({t.fingerprint for t in traces}) > 1, "some answers have a fault, some none"
    again = a_run(tmp_path, list(teachers_of(run)), folder="again")
    assert [c["sent"] for c in work(again).values()] == [0, 0, 0, 0]
    assert read_rows(again.traces("math", "bob"), Trace) == traces


def teachers_of(run: Run) -> Iterator[dict[str, Any]]:
    for teacher in run.recipe.teachers:
        yield teacher.model_dump(mode="json", exclude_none=True)


def test_a_scripted_teachers_identity_changes_with_script_and_problems(tmp_path: Path) -> None:
    def identity(run: Run) -> str:
        return find_teacher(run.recipe.teachers[0], run=run).endpoint.identity

    first = a_run(tmp_path, [scripted()])
    plain = identity(first)
    assert plain == identity(a_run(tmp_path, [scripted()], folder="same"))
    assert plain != identity(a_run(tmp_path, [scripted(skill=0.6)], folder="other"))
    write_rows(first.problems("math"), problems("math", 5), Problem)
    assert plain != identity(first)


def test_tasks_depend_on_the_recipe_alone(tmp_path: Path) -> None:
    run = a_run(tmp_path, [scripted()])

    def listed() -> list[Task]:
        with ExitStack() as resources:
            return tasks(run, resources)

    before = [(t.key, t.inputs, t.outputs) for t in listed()]
    run.problems("math").unlink()
    assert [(t.key, t.inputs, t.outputs) for t in listed()] == before
    assert not (tmp_path / "ledger.sqlite").exists(), "opened by the first task that works"


def test_a_served_checkpoint_is_exported_asked_and_known_by_its_weights(
    tmp_path: Path, work: Work
) -> None:
    model = resolve("random:two-layer", cache=tmp_path / "cache")
    serve = {"quantization": "F32", "slots": 2, "context": 256, "threads": 1}
    teacher = {
        "name": "carl",
        "model": str(model),
        "serve": serve,
        "concurrency": 2,
        "sampling": {"max_tokens": 4},
    }
    run = a_run(tmp_path, [teacher])
    work(run)
    traces = read_rows(run.traces("math", "carl"), Trace)
    assert {t.error for t in traces} == {None}
    assert all(t.completion_tokens is not None and t.completion_tokens <= 4 for t in traces)
    again = a_run(tmp_path, [teacher], folder="again")
    assert [c["sent"] for c in work(again).values()] == [0, 0], (
        "the same weights are the same model"
    )
    other = resolve("random:two-layer", cache=tmp_path / "cache").rename(tmp_path / "other")
    weights = load_file(other / "model.safetensors")
    weights["model.norm.weight"] += 1
    save_file(weights, other / "model.safetensors", metadata={"format": "pt"})
    retrained = a_run(tmp_path, [teacher | {"model": str(other)}], folder="retrained")
    assert [c["from_ledger"] for c in work(retrained).values()] == [0, 0]
