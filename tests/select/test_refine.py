"""Refining end to end: what stands, what falls back and why, files, resume, and the recipe."""

import dataclasses
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cuvee.errors import CuveeError, RecipeError
from cuvee.pipeline import stage_tasks
from cuvee.problems import arithmetic
from cuvee.recipe import Domain, dump_recipe, parse_recipe
from cuvee.records import (
    Example,
    Problem,
    Trace,
    Verdict,
    dumps,
    problem_id,
    read_rows,
    write_rows,
)
from cuvee.runfolder import Run, execute, is_done, is_incomplete, read_manifest
from cuvee.select.refine.asked import message, read_refined
from cuvee.select.refine.attempts import Attempt, Bench, settle
from cuvee.select.refine.held import sized, stated, unfounded, unsupported
from cuvee.select.refine.rows import Refined
from cuvee.select.refine.task import chosen_file, refined_file, refiner_traces
from cuvee.select.sift import Asked, Student

from .conftest import a_trace, a_verdict, reason

MUSING = "Let me read the whole question once more."
ORIGINAL = f"""{MUSING}
20 and 2 are to be added. {MUSING}
Or is it 21? No, as 20 + 2 = 22.
So the sum is 22."""
ANSWER = "The answer is \\boxed{22}."
QUESTION = "What is 20 + 2?"


def an_example(**changes: Any) -> Example:
    example = Example("t", "p", "math", "alice", "Please.", ORIGINAL, ANSWER, 40)
    return dataclasses.replace(example, **changes)


# --- what still holds up the answer


@pytest.mark.parametrize(
    ("verifier", "original", "refined", "answer", "lost"),
    [
        ("math", "20 + 2 = 22", "so 22", "\\boxed{22}", False),
        ("math", "20 + 2 = 22", "so 220 or 1.22", "\\boxed{22}", True),
        ("math", "\\frac{1}{2}.", "No: \\dfrac{1}{2}", "\\boxed{\\frac{1}{2}}", False),
        ("math", "It makes 1,000 dollars", "1000", "\\boxed{1000}", False),
        ("math", "It is x + 1 then", "It is x+1", "\\boxed{x+1}", False),
        # Not written like this in the original either: its last number must be left.
        ("math", "half of 8 is 4", "half of 8 is 4", "\\boxed{\\text{four}}", False),
        ("math", "half of 8 is 4", "half of 8", "\\boxed{\\text{four}}", True),
        ("math", "No numbers at all.", "No numbers.", "\\boxed{\\text{four}}", True),
        ("choice", "So it is B.", "B it is.", "\\boxed{B}", False),
        ("choice", "So it is B.", "Beta, or Ab.", "\\boxed{B}", True),
        ("code", "keep total, then double", "total", "```python\ntotal = double(9)\n```", False),
        ("code", "keep total, then double", "sum it", "```python\ntotal = double(9)\n```", True),
        ("instructions", "A poem about autumn leaves", "leaves", "Autumn leaves fall", False),
        ("instructions", "A poem about autumn leaves", "a poem", "Autumn leaves fall", True),
    ],
)  # fmt: skip
def test_what_the_answer_states_must_still_stand_in_the_reasoning(
    verifier: str, original: str, refined: str, answer: str, lost: bool
) -> None:
    found = unsupported(refined, original, answer, verifier=verifier)
    assert reason(found) == ("unsupported" if lost else None)


@given(st.text(max_size=60), st.text(max_size=20), st.sampled_from(["math", "choice", "code"]))
def test_the_original_supports_itself_or_nothing_could(
    original: str, answer: str, verifier: str
) -> None:
    found = unsupported(original, original, answer, verifier=verifier)
    assert found is None or "nothing of the answer stands" in str(found.detail)
    assert unfounded(original, original, "", "") is None


def test_numbers_that_stand_nowhere_else_are_unfounded() -> None:
    assert unfounded("20 + 2 = 22", "20", "What is 2?", "22") is None
    new = unfounded("20 + 2 = 22, 7, 8", "20", "What is 2?", "22")
    assert new is not None
    assert new.detail == "2 of 5 numbers are new: 7, 8"


@pytest.mark.parametrize(
    ("tokens", "said"), [(100, None), (20, None), (19, "too_little"), (101, "longer")]
)
def test_refined_reasoning_is_neither_longer_nor_too_little(tokens: int, said: str | None) -> None:
    assert reason(sized(tokens, 100, least_share=0.2)) == said


@given(st.text(), st.text(), st.text())
def test_nothing_in_a_trace_can_end_the_part_it_stands_in(
    question: str, reasoning: str, answer: str
) -> None:
    prompt = message(question, reasoning, answer)
    mark = prompt.split("=== question ")[1].split("\n")[0]
    assert prompt.count(f"=== end {mark}") == prompt.count(f"=== reasoning {mark}") == 1


@pytest.mark.parametrize(
    ("reply", "refined"),
    [
        ("<refined>\nso 22\n</refined>", "so 22"),
        ("Here:\n<refined>a <refined> b</refined>\nDone.", "a <refined> b"),
        ("<refined>\n \n</refined>", None),
        ("<refined>so 22", None),
        ("so 22", None),
    ],
)
def test_the_reasoning_stands_between_the_marks(reply: str, refined: str | None) -> None:
    assert read_refined(reply) == refined


# --- which attempts stand


def bench(
    verdict: str = "correct", *, expected: str = "correct", asked: list[Trace] | None = None
) -> Bench:
    source = {"source": "generator:arithmetic", "count": 1}

    def recheck(traces: Sequence[Trace]) -> list[str]:
        (asked if asked is not None else []).extend(traces)
        return [verdict] * len(traces)

    return Bench(
        domain=Domain.model_validate(
            {"problems": [source], "verifier": "math", "select": {"tokens": [6, 100]}}
        ),
        least_share=0.2,
        asked={"p": Asked("test", QUESTION, "Please.")},
        expected={"t": expected},
        student=Student(
            ("<|end|>",), lambda rows: [len((r + " " + a).split()) for _, r, a in rows]
        ),
        recheck=recheck,
    )


def settled(reasoning: str, bench_: Bench, answer: str = ANSWER) -> tuple[Example, Refined]:
    [example], [row] = settle(
        [Attempt(an_example(), reasoning, answer, trace="r")], bench_, way="teacher"
    )
    return example, row


def test_what_holds_up_is_taken_with_its_own_count_of_tokens() -> None:
    example, row = settled("20 and 2 are to be added: 20 + 2 = 22.", bench())
    assert example == an_example(reasoning="20 and 2 are to be added: 20 + 2 = 22.", tokens=16)
    assert row == Refined(
        "t", "p", "math", "alice", "teacher", accepted=True, reason="refined", detail=None,
        tokens_before=40, tokens=16, verdict="correct", applied="{}", trace="r",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("reasoning", "why"),
    [
        (ORIGINAL, "unchanged"),
        ("</think>" + ORIGINAL, "think_tags"),
        ("20 + 2 = 22 <|end|>", "control_token"),
        ("20 + 2 it is. My best guess is 22.", "gives_up"),
        ("20 and 2 are to be added, as was said.", "unsupported"),
        ("20 + 2 = 22, and 7 + 8 = 15.", "unfounded"),
        ("22 " * 41, "repetition"),
        (" ".join(f"word{'x' * n}" for n in range(60)) + " 22", "longer"),
        ("22", "too_little"),
        (" ".join(["twenty", "two", "22"]), "too_little"),
    ],
)
def test_what_does_not_hold_up_leaves_the_original_with_the_reason(
    reasoning: str, why: str
) -> None:
    asked: list[Trace] = []
    example, row = settled(reasoning, bench(asked=asked))
    assert example == an_example()
    assert (row.accepted, row.reason) == (False, why)
    assert asked == [], "the verifier is not asked of what is refused already"


def test_the_verdict_must_be_the_one_it_was_chosen_with() -> None:
    good = "20 and 2 are to be added: 20 + 2 = 22."
    example, row = settled(good, bench("not_checked"))
    assert (example, row.reason, row.verdict) == (
        an_example(),
        "verdict_not_checked",
        "not_checked",
    )
    assert settled(good, bench("not_checked", expected="not_checked"))[1].accepted


def test_another_answer_is_refused_whatever_the_verifier_says() -> None:
    assert settled("20 + 2 = 22, so it is 22", bench(), "It is \\boxed{23}.")[1].reason == (
        "answer_changed"
    )


def test_a_window_that_the_original_passed_holds_for_the_refined() -> None:
    example, row = settled("20 + 2 = 22.", dataclasses.replace(bench(), least_share=0.01))
    assert row.reason == "refined"
    narrow = bench().domain.model_copy(
        update={"select": bench().domain.select.model_copy(update={"tokens": (12, 100)})}
    )
    example, row = settled(
        "20 + 2 = 22.", dataclasses.replace(bench(), domain=narrow, least_share=0.01)
    )
    assert (example, row.reason) == (an_example(), "too_short")


# --- the whole way, with a scripted teacher as the refiner


def sums(count: int) -> list[Problem]:
    items = arithmetic.generate(count, seed=5, args={})
    return [
        Problem(
            id=problem_id(item.question, item.gold, None),
            domain="sums",
            source="generator:arithmetic",
            question=item.question,
            prompt=item.question,
            verifier="math",
            gold=item.gold,
            tests=None,
            meta=dumps(item.meta),
        )
        for item in items
    ]


def a_recipe(tmp_path: Path, refine: dict[str, Any] | None, **script: Any) -> dict[str, Any]:
    source = {"source": "generator:arithmetic", "count": 12}
    domain = {"problems": [source], "verifier": "math"}
    return {
        "name": "test",
        "base": "random:two-layer",
        "ledger": str(tmp_path / "ledger.sqlite"),
        "domains": {"sums": domain | ({} if refine is None else {"refine": refine})},
        "teachers": [
            {"name": "ann", "scripted": {"http_faults": 0.0}},
            {"name": "rae", "domains": [], "scripted": {"http_faults": 0.0} | script},
        ],
    }


def a_run(tmp_path: Path, refine: dict[str, Any] | None, **script: Any) -> Run:
    """Return a run with verified traces that muse a lot, each ending in a courtesy."""
    recipe = parse_recipe(a_recipe(tmp_path, refine, **script), where="test")
    run, problems = Run(tmp_path / "run", recipe), sums(12)
    traces = [
        a_trace(
            id=f"t{n:02}",
            problem_id=p.id,
            domain="sums",
            model="ann",
            reasoning=f"{MUSING}\nI add what the question gives.\n{MUSING}\nIt makes {p.gold}.",
            answer=f"The answer is \\boxed{{{p.gold}}}. I hope this helps!",
        )
        for n, p in enumerate(problems)
    ]
    if not run.problems("sums").exists():
        write_rows(run.problems("sums"), problems, Problem)
        write_rows(run.traces("sums", "ann"), traces, Trace)
        write_rows(run.verdicts("sums"), [a_verdict(t) for t in traces], Verdict)
    return run


def select(run: Run) -> list[str]:
    """Do what is not done of the stage; return the tasks that were done."""
    done = []
    with ExitStack() as resources:
        for task in stage_tasks(run, "select", resources):
            if not is_done(run, task, read_manifest(run.path)):
                execute(run, task)
                done.append(task.key)
    return done


def examples(run: Run) -> list[Example]:
    return read_rows(run.examples("sums"), Example)


def test_the_rules_need_no_teacher_and_keep_the_originals(tmp_path: Path) -> None:
    run = a_run(tmp_path, {})
    assert select(run) == ["select/sums", "select/refine/sums"]
    assert select(run) == []
    before, after = read_rows(chosen_file(run, "sums"), Example), examples(run)
    assert [e.id for e in after] == [e.id for e in before]
    assert all(e.reasoning.count(MUSING) == 2 for e in before)
    assert all(e.reasoning.count(MUSING) == 1 for e in after)
    assert all(
        b.answer == f"{a.answer} I hope this helps!" for a, b in zip(after, before, strict=True)
    )
    rows = read_rows(refined_file(run, "sums"), Refined)
    assert Counter((r.way, r.reason, r.verdict) for r in rows) == {
        ("rules", "refined", "correct"): 12
    }
    assert [(r.tokens_before, r.tokens) for r in rows] == [
        (b.tokens, a.tokens) for b, a in zip(before, after, strict=True)
    ]
    assert json.loads(rows[0].applied) == {"courtesy": 1, "musing": 1}
    counts = read_manifest(run.path)["select/refine/sums"]["counts"]
    assert counts["reasons"] == {"rules: refined": 12}
    assert counts["example_tokens"] < counts["example_tokens_before"]


def test_a_recipe_without_refine_is_as_it_was(tmp_path: Path) -> None:
    run = a_run(tmp_path, None)
    assert "refine:" not in dump_recipe(run.recipe)
    assert select(run) == ["select/sums"]
    assert sorted(p.name for p in run.folder("select").iterdir()) == [
        "dropped",
        "funnel",
        "sums.parquet",
    ]
    plain = examples(run)
    refining = a_run(tmp_path, {})
    assert select(refining) == ["select/sums", "select/refine/sums"]
    assert read_rows(chosen_file(refining, "sums"), Example) == plain
    assert select(a_run(tmp_path, None)) == ["select/sums"], "and back again"
    assert examples(run) == plain


def test_a_teacher_refines_and_its_answers_are_kept(tmp_path: Path) -> None:
    run = a_run(tmp_path, {"rules": False, "teacher": "rae"})
    select(run)
    assert all(MUSING not in e.reasoning for e in examples(run))
    assert all(e.answer.endswith("I hope this helps!") for e in examples(run))
    rows, kept = (
        read_rows(refined_file(run, "sums"), Refined),
        read_rows(refiner_traces(run, "sums"), Trace),
    )
    assert {(r.way, r.reason) for r in rows} == {("teacher", "refined")}
    assert [(r.trace, r.id) for r in rows] == [(t.id, t.problem_id) for t in kept]
    assert {t.model for t in kept} == {"rae"}
    counts = read_manifest(run.path)["select/refine/sums"]["counts"]
    assert (counts["sent"], counts["from_ledger"], counts["failed"]) == (12, 0, 0)
    # Another share changes what stands, not what is asked: all of it is in the ledger.
    stricter = a_run(tmp_path, {"rules": False, "teacher": "rae", "least_share": 0.9})
    assert select(stricter) == ["select/refine/sums"]
    counts = read_manifest(run.path)["select/refine/sums"]["counts"]
    assert (counts["sent"], counts["from_ledger"]) == (0, 12)
    assert counts["reasons"] == {"teacher: too_little": 12}
    assert examples(run) == read_rows(chosen_file(run, "sums"), Example)


def test_a_teacher_that_refines_badly_leaves_what_the_rules_made(tmp_path: Path) -> None:
    faults = ["wrong_result", "no_answer", "repetition", "truncated"]
    run = a_run(tmp_path, {"teacher": "rae"}, skill=0.2, faults=faults, seed=3)
    select(run)
    after = {e.id: e for e in examples(run)}
    rows = read_rows(refined_file(run, "sums"), Refined)
    made = {
        t.problem_id: (t.fingerprint or "").partition("/")[2]
        for t in read_rows(refiner_traces(run, "sums"), Trace)
    }
    reasons = {
        "none": {"refined"},
        "wrong_result": {"unsupported"},
        "no_answer": {"unreadable"},
        "truncated": {"truncated"},
        "repetition": {"longer"},
    }
    said = {row.id: row for row in rows if row.way == "teacher"}
    assert len(set(made.values())) == 5, "each fault, and none, was met"
    for name, fault in made.items():
        assert said[name].reason in reasons[fault], (name, fault)
        assert (MUSING in after[name].reasoning) == (fault != "none")
        assert after[name].reasoning.count(MUSING) <= 1
        assert stated(after[name].answer, verifier="math") is not None
    assert {row.reason for row in rows if row.way == "rules"} == {"refined"}


def test_a_refiner_that_cannot_be_reached_leaves_no_examples(tmp_path: Path) -> None:
    run = a_run(tmp_path, None)
    select(run)
    data = a_recipe(tmp_path, {"teacher": "rae"})
    data["teachers"][1] = {
        "name": "rae", "domains": [], "url": "http://127.0.0.1:9/v1", "model": "m", "retries": 0,
    }  # fmt: skip
    broken = Run(run.path, parse_recipe(data, where="test"))
    with pytest.raises(CuveeError):
        select(broken)
    assert not run.examples("sums").exists(), "nothing that looks done"
    assert "select/refine/sums" not in read_manifest(run.path)
    assert select(a_run(tmp_path, {"teacher": "rae"})) == ["select/refine/sums"]


@pytest.mark.parametrize(
    ("refine", "said"),
    [
        ({"teacher": "max"}, r"refine.teacher: no teacher that can be asked is called 'max'"),
        ({"rules": False}, "does nothing"),
        ({"least_share": 0}, "least_share"),
        ({"prompt": "x"}, "prompt"),
    ],
)
def test_a_refine_that_cannot_be_is_refused(
    tmp_path: Path, refine: dict[str, Any], said: str
) -> None:
    with pytest.raises(RecipeError, match=said):
        parse_recipe(a_recipe(tmp_path, refine), where="test")


def answers(tmp_path: Path) -> int:
    """Return how many answers the ledger holds by now."""
    place = tmp_path / "ledger.sqlite"
    if not place.exists():
        return 0
    try:
        with closing(sqlite3.connect(f"file:{place}?mode=ro", uri=True)) as ledger:
            return int(ledger.execute("SELECT count(*) FROM answers").fetchone()[0])
    except sqlite3.OperationalError:
        return 0  # it is just being made


@pytest.mark.slow
def test_a_kill_within_the_asking_buys_no_answer_twice(tmp_path: Path) -> None:
    run = a_run(tmp_path, {"teacher": "rae"}, faults=["slow"])
    data = a_recipe(tmp_path, {"teacher": "rae"})
    data["teachers"][1]["concurrency"] = 1
    (tmp_path / "recipe.json").write_text(json.dumps(data))
    code = (
        "import sys, json; from pathlib import Path; from cuvee.recipe import parse_recipe;"
        "from cuvee.pipeline import run_stages;"
        "run_stages(parse_recipe(json.loads(Path(sys.argv[1]).read_text()), where='t'),"
        " Path(sys.argv[2]), ['select'])"
    )
    arguments = [sys.executable, "-c", code, str(tmp_path / "recipe.json"), str(run.path)]
    child = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    end = time.time() + 120
    while not (had := answers(tmp_path)) and child.poll() is None and time.time() < end:
        time.sleep(0.01)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    assert had > 0
    assert "select/refine/sums" not in read_manifest(run.path)
    done = Run(run.path, parse_recipe(data, where="test"))
    assert select(done) == ["select/refine/sums"]
    entry = read_manifest(run.path)["select/refine/sums"]
    assert not is_incomplete(entry)
    counts = entry["counts"]
    assert counts["from_ledger"] >= had
    assert counts["sent"] + counts["from_ledger"] == 12
    assert counts["reasons"] == {"rules: refined": 12, "teacher: refined": 12}
