"""Select on a Ray of one machine: the rows and the files of the pool, whatever is killed."""

import contextlib
import functools
import itertools
import os
import pickle
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from cuvee.models.checkpoint import resolve
from cuvee.models.tokens import count_targets
from cuvee.recipe import Domain, parse_recipe
from cuvee.records import Problem, Trace, Verdict, problem_id, write_rows
from cuvee.runfolder import Run, execute, is_done, read_manifest
from cuvee.select.clustered import sift_on_ray
from cuvee.select.funnel import funnel_file
from cuvee.select.objection import FILTERS
from cuvee.select.sift import (
    Asked,
    Judged,
    Sifted,
    Student,
    arranged,
    cases,
    judged,
    sift,
    sift_cases,
)
from cuvee.select.stage import load_student, tasks
from cuvee.verify.judge_rubric import Grade

from .conftest import workers_of

# Of a Ray that had to be started twice: it forgets its own processes.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

SENTENCE = "Twenty and two make twenty-two, as the carry is none and the tens stay as they are."
QUESTION = "Which sum do twenty and two make when they are added?"
FAULTS: dict[str, dict[str, Any]] = {
    "request_failed": {"finish_reason": "error", "reasoning": "", "answer": "", "error": "500"},
    "truncated": {"finish_reason": "length"},
    "unfinished": {"finish_reason": "content_filter"},
    "no_reasoning": {"reasoning": ""},
    "empty_answer": {"answer": ""},
    "think_tags": {"answer": "<think>22"},
    "control_token": {"answer": "22<|im_end|>"},
    "language": {"reasoning": "我们先仔细读一遍题目" * 4},
    "loop": {"reasoning": " ".join(map(str, range(120))) + " 22," * 60},
    "repetition": {"reasoning": "Let me look at this step once more before I go on. " * 15},
    "copied": {"reasoning": f"{QUESTION} So 22."},
    "gives_up": {"reasoning": f"{SENTENCE} But they are too many. My best guess is 22."},
    "answers_early": {"reasoning": "\\boxed{22}, as twenty and two make twenty-two."},
    "too_short": {"reasoning": "Twenty-two."},
    "too_long": {"reasoning": " ".join(f"step{number}" for number in range(900))},
}
SAID = {"verdict_wrong": "wrong", "verdict_no_answer": "no_answer"}
RATES = {"pass_rate_high": ["correct"] * 4, "pass_rate_low": ["correct", *["wrong"] * 9]}
GRADES = {"grade_low": 2.0, "not_graded": None}
SOUND = 150
WINDOW = [60, 900]


def a_trace(name: str, *, of: str = "p", **changes: Any) -> Trace:
    values: dict[str, Any] = {
        "id": name,
        "problem_id": of,
        "domain": "math",
        "model": "t",
        "sample": 0,
        "reasoning": f"{SENTENCE} This is thought {name}.",
        "answer": "The sum is \\boxed{22}.",
        "finish_reason": "stop",
        "prompt_tokens": 1,
        "completion_tokens": 1,
        "seconds": 0.0,
        "request": "r",
        "fingerprint": None,
        "error": None,
    }
    return Trace(**values | changes)


def a_verdict(trace: Trace, name: Any) -> Verdict:
    return Verdict(trace.id, trace.problem_id, "math", name, "told", None, None, None, "test", 0.0)


def everything() -> tuple[list[Trace], Judged, dict[str, Asked]]:
    """Return traces that meet every filter's reason once, among many sound ones."""
    pairs = [(a_trace(name, **changes), "correct") for name, changes in FAULTS.items()]
    pairs += [(a_trace(name), verdict) for name, verdict in SAID.items()]
    pairs += [(a_trace(name), "correct") for name in GRADES]
    for name, verdicts in RATES.items():
        pairs += [(a_trace(f"{name}{n}", of=name), v) for n, v in enumerate(verdicts)]
    pairs += [(a_trace(f"sound{n}"), "correct") for n in range(SOUND)]
    pairs = pairs[::2] + pairs[1::2]  # so that fit and unfit ones stand side by side
    traces = [trace for trace, _ in pairs]
    said = judged([a_verdict(trace, verdict) for trace, verdict in pairs])
    grades = {trace.id: a_grade(trace.id, GRADES.get(trace.id, 5.0)) for trace in traces}
    problems = {name: Asked("s", QUESTION, QUESTION) for name in ("p", *RATES)}
    return traces, Judged(said.verdicts, said.tallies, grades), problems


def a_grade(name: str, grade: float | None) -> Grade:
    return Grade(name, "p", "math", grade, grade, "[]", "graded", None, "judge", 1)


def a_domain(**select: Any) -> dict[str, Any]:
    keys = {"language": "en", "tokens": WINDOW, "pass_rate": [0.2, 0.995]}
    problems = [{"source": "a.jsonl"}]
    rubric = {"rubric": {"teacher": "t"}} if "rubric_min" in select else {}
    return {"problems": problems, "verifier": "math", "select": keys | select, **rubric}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return resolve("random:two-layer", cache=tmp_path_factory.mktemp("cache"))


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cuvee.select.clustered.CHUNK_ROWS", 7)


def by_the_pool(student: Student) -> list[Sifted]:
    domain = Domain.model_validate(a_domain(rubric_min=3))
    return list(sift(*everything(), domain=domain, student=student, tick=lambda _: None))


def on_ray(student: Student, ticks: list[int]) -> Any:
    domain = Domain.model_validate(a_domain(rubric_min=3))
    return sift_on_ray(*everything(), domain=domain, student=student, tick=ticks.append)


def test_every_reason_and_every_candidate_is_the_pool_s_when_all_has_been_sent(base: Path) -> None:
    def sent(value: Any) -> Any:
        return pickle.loads(pickle.dumps(value))  # noqa: S301 - our own, and as Ray sends it

    student = load_student(str(base))
    domain = Domain.model_validate(a_domain(rubric_min=3))
    there, its_domain = sent(student), sent(domain)
    rest = cases(*everything(), select=domain.select)
    chunks = iter(lambda: list(itertools.islice(rest, 7)), [])
    rows = arranged(
        row
        for chunk in chunks
        for row in sent(sift_cases(sent(chunk), domain=its_domain, student=there))
    )
    assert list(rows) == by_the_pool(student)


@pytest.mark.slow
@pytest.mark.usefixtures("two_cpus", "small_chunks")
def test_every_reason_and_every_candidate_is_the_pool_s_though_a_worker_is_killed(
    base: Path,
) -> None:
    student = load_student(str(base))
    ticks: list[int] = []
    rows = on_ray(student, ticks)
    got = [next(rows) for _ in range(90)]
    os.kill(workers_of(os.getpid())[0], signal.SIGKILL)
    got += rows
    assert got == by_the_pool(student)
    assert sum(ticks) == len(got)
    reasons = {getattr(row, "reason", None) for row in got}
    untried = {"vote", "choice", "workers"}
    met = {r for name, of in FILTERS.items() if name not in untried for r in of}
    code = {"code_blocks", "not_python", "verdict_not_checked", "verdict_correct"}
    assert reasons == met - code | {None}


@pytest.mark.slow
@pytest.mark.usefixtures("two_cpus", "small_chunks")
def test_a_trace_that_kills_every_worker_is_dropped_with_a_reason_and_alone(
    base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sound = load_student(str(base))
    count = functools.partial(count_targets, sound.count.args[0])  # type: ignore[attr-defined]

    def deadly(examples: Sequence[tuple[str, str, str]]) -> list[int]:
        if any("thought sound77." in reasoning for _, reasoning, _ in examples):
            os._exit(1)
        return count(examples)

    found = {row.id: row for row in on_ray(Student(sound.control_tokens, deadly), [])}
    pool = {row.id: row for row in by_the_pool(sound)}
    lost = found.pop("sound77")
    assert (lost.reason, lost.model, lost.domain) == ("worker_lost", "t", "math")
    assert "WorkerCrashedError" in lost.detail
    del pool["sound77"]
    assert found == pool
    assert "given up after 3 tries" in capsys.readouterr().err


# The stage


def run_of(path: Path, base: Path, **more: Any) -> Run:
    recipe = {
        "name": "a",
        "base": str(base),
        "domains": {"math": a_domain(target=40)},
        "teachers": [{"name": "t", "scripted": {}}, {"name": "u", "scripted": {}}],
        **more,
    }
    run = Run(path, parse_recipe(recipe, where="-"))
    names = [f"{n} + 1" for n in range(60)]
    ids = [problem_id(name, "22", None) for name in names]
    problems = [
        Problem(i, "math", "s", name, f"Please: {name}?", "math", "22", None, "{}")
        for i, name in zip(ids, names, strict=True)
    ]
    write_rows(run.problems("math"), problems, Problem)
    verdicts = []
    faults = [{}, *FAULTS.values()]
    for teacher in ("t", "u"):
        traces = [
            a_trace(f"{teacher}{n}", of=i, model=teacher, **faults[n % len(faults)])
            for n, i in enumerate(ids)
        ]
        write_rows(run.traces("math", teacher), traces, Trace)
        verdicts += [a_verdict(t, "wrong" if t.id == "u0" else "correct") for t in traces]
    write_rows(run.verdicts("math"), verdicts, Verdict)
    return run


@pytest.mark.slow
@pytest.mark.usefixtures("two_cpus", "small_chunks")
def test_a_run_s_files_are_the_same_and_are_found_done_by_either(
    tmp_path: Path, base: Path
) -> None:
    domains = {"math": a_domain(pass_rate=[0, 1])}
    pool = run_of(tmp_path, base, domains=domains)
    ray = run_of(tmp_path, base, domains=domains, workers="ray")
    files = (pool.examples("math"), pool.dropped("select", "math"), funnel_file(pool, "math"))
    with contextlib.ExitStack() as resources:
        (by_pool,), (by_ray,) = tasks(pool, resources), tasks(ray, resources)
        counts = execute(pool, by_pool)
        written = [file.read_bytes() for file in files]
        assert is_done(ray, by_ray, read_manifest(tmp_path))  # nothing is sifted twice
        for file in files:
            file.unlink()
        assert execute(ray, by_ray) == counts
    assert [file.read_bytes() for file in files] == written
    assert is_done(pool, by_pool, read_manifest(tmp_path))
    assert counts["examples"] > 5
    assert len(counts) > 10  # the reasons of several filters


def test_a_run_s_tasks_are_the_same_with_either_workers(tmp_path: Path, base: Path) -> None:
    with contextlib.ExitStack() as resources:
        (by_pool,) = tasks(run_of(tmp_path, base), resources)
        (by_ray,) = tasks(run_of(tmp_path, base, workers="ray", address="auto"), resources)
    assert (by_pool.key, by_pool.settings) == (by_ray.key, by_ray.settings)
    assert (by_pool.inputs, by_pool.outputs) == (by_ray.inputs, by_ray.outputs)
