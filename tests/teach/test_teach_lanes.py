"""Several teachers in one stage: side by side, one of them down, published, a shared budget."""

import asyncio
import json
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from cuvee.errors import BudgetError, RecipeError, TeacherError
from cuvee.pipeline import run_stages
from cuvee.records import Problem, Trace, read_rows, write_rows
from cuvee.runfolder import Run, read_manifest
from cuvee.teach.ledger import Ledger

from .conftest import Behaviour, Body, Loopback, answer_well
from .runs import a_run, problems, remote, scripted

Serve = Callable[[Behaviour], Loopback]
NOWHERE = "http://127.0.0.1:9/v1"
"""The discard port: nothing listens there."""


def teach(run: Run) -> None:
    """Run the stage as `cuvee teach` does."""
    run_stages(run.recipe, run.path, ("teach",))


def done(run: Run) -> set[str]:
    """Return the tasks of the stage that are done."""
    return {key.removeprefix("teach/") for key in read_manifest(run.path)}


def with_recipe(run: Run, **changes: Any) -> Run:
    """Return the run with another recipe in the same folder."""
    values = run.recipe.model_dump(mode="json") | changes
    return Run(run.path, type(run.recipe).model_validate(values))


def test_remote_teachers_are_asked_side_by_side(serve: Serve, tmp_path: Path) -> None:
    meeting = threading.Barrier(2)

    async def meet(request: web.Request, body: Body, tries: int) -> web.StreamResponse:
        if len(body["messages"]) == 1 and not met:
            met.append(await asyncio.get_running_loop().run_in_executor(None, meeting.wait, 10))
        return await answer_well(request, body, tries)

    met: list[int] = []
    servers = [serve(meet), serve(meet)]
    names = ["alice", "bob"]
    teachers = [remote(s, name=n, concurrency=1) for s, n in zip(servers, names, strict=True)]
    teach(a_run(tmp_path, teachers))
    assert not meeting.broken, "each waited for the other's first request, and it came"


def test_a_teacher_that_is_down_stops_no_other_and_is_said_at_the_end(
    serve: Serve, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    server = serve(answer_well)
    down = remote(server, name="down", model="d", url=NOWHERE, retries=0)
    run = a_run(tmp_path, [down, remote(server), scripted()])
    with pytest.raises(TeacherError, match=r"down at .*cannot be reached") as caught:
        teach(run)
    assert caught.value.exit_code == 1
    assert done(run) == {"math/alice", "more/alice", "math/bob", "more/bob"}
    assert "teach/math/down: stopped" in capfd.readouterr().err
    sent = len(server.bodies)
    up = [t.model_dump(exclude_none=True) for t in run.recipe.teachers]
    up[0]["url"] = server.url
    teach(with_recipe(run, teachers=up))
    assert len(server.bodies) == sent + 12, "of the others nothing was asked again"


def test_two_that_are_down_are_both_said(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    teachers = [
        {"name": name, "url": NOWHERE, "model": "m", "retries": 0} for name in ("one", "two")
    ]
    with pytest.raises(TeacherError, match="one at"):
        teach(a_run(tmp_path, teachers))
    assert "warning: two at" in capfd.readouterr().err


def test_a_mistake_of_the_recipe_is_said_once_and_before_anybody_is_asked(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("BOBS_KEY", raising=False)
    server = serve(answer_well)
    teachers = [remote(server), remote(server, name="bob", key_env="BOBS_KEY"), scripted(seed=2)]
    teachers[2]["name"] = "carl"
    with pytest.raises(RecipeError, match="BOBS_KEY"):
        teach(a_run(tmp_path, teachers))
    assert server.bodies == []
    assert "BOBS_KEY" not in capfd.readouterr().err


def test_what_the_ledger_holds_needs_neither_key_nor_server_nor_engine(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALICES_KEY", "secret")
    server = serve(answer_well)
    teachers = [remote(server, key_env="ALICES_KEY"), scripted()]
    teach(a_run(tmp_path, teachers))
    sent = len(server.bodies)
    monkeypatch.delenv("ALICES_KEY")
    again = a_run(tmp_path, teachers, folder="again")
    teach(again)
    assert len(server.bodies) == sent
    assert not (again.path / "engines").exists(), "no scripted teacher was started"
    more = a_run(tmp_path, [remote(server, key_env="ALICES_KEY", samples=2)], folder="more")
    with pytest.raises(RecipeError, match="ALICES_KEY"):
        teach(more)


def published(run: Run, domain: str, models: list[str]) -> list[Trace]:
    """Write a trace of each model for each problem of a domain, as the stage before would."""
    traces = [
        Trace(
            id=f"{model}-{problem.id}",
            problem_id=problem.id,
            domain=domain,
            model=model,
            sample=0,
            reasoning="hm",
            answer="7",
            finish_reason="stop",
            prompt_tokens=None,
            completion_tokens=None,
            seconds=0.0,
            request="",
            fingerprint=None,
            error=None,
        )
        for problem in read_rows(run.problems(domain), Problem)
        for model in models
    ]
    write_rows(run.published(domain), traces, Trace)
    return traces


def test_published_traces_are_copied_and_their_teacher_is_not_asked(
    serve: Serve, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run = a_run(
        tmp_path,
        [
            {"name": "r1", "published": True},
            {"name": "r2", "published": True},
            remote(serve(answer_well)),
        ],
        traces={"math": ["r1", "r2"], "more": ["r2"]},
    )
    traces = published(run, "math", ["r1", "other"])
    published(run, "more", ["r2"])
    teach(run)
    assert done(run) == {"math/r1", "math/r2", "more/r2", "math/alice", "more/alice"}
    assert read_rows(run.traces("math", "r1"), Trace) == [t for t in traces if t.model == "r1"]
    assert read_rows(run.traces("math", "r2"), Trace) == []
    assert "r2: no published trace of a problem that was kept in math" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("limit", "room", "kept"), [("requests", 5, 5), ("tokens", 400, 4), ("usd", 0.002, 4)]
)
def test_the_budget_ends_the_stage_and_a_larger_one_goes_on(
    serve: Serve, tmp_path: Path, limit: str, room: float, kept: int
) -> None:
    server = serve(answer_well)
    prices = {"input": 5, "output": 5}
    teacher = remote(server, concurrency=1, usd_per_mtok=prices, sampling={"max_tokens": 64})
    run = with_recipe(a_run(tmp_path, [teacher]), budget={limit: room})
    with pytest.raises(BudgetError, match=rf"budget\.{limit} .*raise budget\.{limit}") as caught:
        teach(run)
    assert caught.value.exit_code == 3
    assert kept <= len(server.bodies) < 12
    with Ledger.open(run.recipe.ledger) as ledger:
        spent = ledger.spent(run.account()).total
        assert getattr(spent, limit) <= room
        assert spent.answers == len(server.bodies)
    teach(with_recipe(run, budget={limit: 1000}))
    assert len(server.bodies) == 12, "nothing was asked twice"
    assert done(run) == {"math/alice", "more/alice"}


def test_a_budget_is_shared_by_all_teachers_of_a_run_and_by_no_other_run(
    serve: Serve, tmp_path: Path
) -> None:
    server = serve(answer_well)
    teachers = [remote(server, name=name, model=name, concurrency=1) for name in ("alice", "bob")]
    run = with_recipe(a_run(tmp_path, teachers), budget={"requests": 15})
    other = a_run(tmp_path, [remote(server, system="Be brief.")], folder="other")
    teach(with_recipe(other, budget={"requests": 12}))
    server.bodies.clear()
    with pytest.raises(BudgetError):
        teach(run)
    assert len(server.bodies) <= 15


def test_ctrl_c_ends_all_lines_at_once_and_keeps_what_was_answered(
    serve: Serve, tmp_path: Path
) -> None:
    answered = threading.Event()

    async def answer_three(request: web.Request, body: Body, tries: int) -> web.StreamResponse:
        if len(server.bodies) <= 3:
            return await answer_well(request, body, tries)
        await asyncio.sleep(0.5)  # till the first three are on the disk
        if not answered.is_set():
            answered.set()
            os.kill(os.getpid(), signal.SIGINT)
        await asyncio.sleep(600)
        raise AssertionError

    server = serve(answer_three)
    teachers = [remote(server, name=name, model=name, concurrency=1) for name in ("alice", "bob")]
    run = a_run(tmp_path, teachers)
    with pytest.raises(KeyboardInterrupt):
        teach(run)
    assert answered.is_set()
    with Ledger.open(run.recipe.ledger) as ledger:
        assert ledger.count_answers() == 3
    assert not done(run)


def test_scripted_teachers_run_one_after_another_and_are_gone_after_the_stage(
    tmp_path: Path,
) -> None:
    teachers = [scripted(), scripted(style="terse") | {"name": "terse"}]
    run = a_run(tmp_path, teachers)
    teach(run)
    engines = run.path / "engines"
    assert sorted(file.name for file in engines.glob("*.log")) == ["bob.log", "terse.log"]
    assert not list(engines.glob("*.pid"))
    assert not processes_of(engines)


def test_an_engine_that_dies_stops_no_other_teacher(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    dying = scripted(skill=1, faults=["slow"], http_faults=0.5)
    dying |= {"name": "dying", "retries": 0, "concurrency": 1}
    run = a_run(tmp_path, [dying, scripted()])
    over = threading.Event()

    def kill() -> None:
        file = run.path / "engines" / "dying.out"
        while not over.wait(0.01):
            if file.exists() and "url" in file.read_text():
                pid = json.loads(file.with_suffix(".pid").read_text())["pid"]
                return os.kill(pid, signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        with pytest.raises(TeacherError, match="dying at"):
            teach(run)
    finally:
        over.set()
        killer.join()
    assert done(run) == {"math/bob", "more/bob"}
    assert "engine dying: ended by itself (exit code -9)" in capfd.readouterr().err


def processes_of(folder: Path) -> list[str]:
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = file.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if str(folder) in line:
            found.append(line)
    return found


def test_a_judge_is_paid_from_the_same_budget(serve: Serve, tmp_path: Path) -> None:
    async def decide(request: web.Request, body: Body, tries: int) -> web.StreamResponse:
        if "Decide whether" in body["messages"][-1]["content"]:
            body["seed"] = "Decision: correct"
        return await answer_well(request, body, tries)

    server = serve(decide)
    teachers = [remote(server), remote(server, name="jane", model="j", domains=["more"])]
    run = a_run(tmp_path, teachers, verifier="judge", judge="jane")
    write_rows(run.problems("math"), problems("math", 6, verifier="judge"), Problem)
    limited = with_recipe(run, budget={"requests": 20})
    teach(limited)
    assert len(server.bodies) == 18
    with pytest.raises(BudgetError, match=r"jane: .*budget\.requests"):
        run_stages(limited.recipe, run.path, ("verify",))
    assert len(server.bodies) == 20
    run_stages(with_recipe(run, budget={"requests": 30}).recipe, run.path, ("verify",))
    assert len(server.bodies) == 30 - 6
