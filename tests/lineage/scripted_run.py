"""A run that scripted teachers graded and refined, from verdicts to examples."""

import dataclasses
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from cuvee.pipeline import stage_tasks
from cuvee.problems import arithmetic
from cuvee.recipe import dump_recipe, parse_recipe
from cuvee.records import (
    Dropped,
    Problem,
    Trace,
    Verdict,
    content_hash,
    dumps,
    problem_id,
    write_rows,
)
from cuvee.runfolder import Run, execute

MUSING = "Let me read the whole question once more."
HOSTILE = '<script>document.title = "owned"</script> evil\u202etxt zero\u200bwidth \x1b[31m'
"""Stands in every trace: the scripted refiner leaves it where it was."""
RECIPE: dict[str, Any] = {
    "name": "small",
    "base": "random:two-layer",
    "domains": {
        "sums": {
            "problems": [{"source": "generator:arithmetic", "count": 12}],
            "verifier": "math",
            "rubric": {"teacher": "jo", "points": ["Sums: each holds.", "Clarity: <b>all</b>."]},
            "select": {"rubric_min": 4, "answer_after": 0, "max_copied": 1},
            "refine": {"teacher": "rae"},
        }
    },
    "teachers": [
        {"name": "ann", "scripted": {"http_faults": 0.0}},
        {"name": "jo", "domains": [], "scripted": {"http_faults": 0.0}},
        {"name": "rae", "domains": [], "scripted": {"http_faults": 0.0, "skill": 0.3, "seed": 3,
         "faults": ["wrong_result", "no_answer", "repetition", "truncated"]}},
    ],
}  # fmt: skip


def problems(count: int) -> list[Problem]:
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
        for item in arithmetic.generate(count, seed=5, args={})
    ]


def _trace(of: Problem, sample: int, reasoning: str) -> Trace:
    return Trace(
        id=content_hash(of.id, sample),
        problem_id=of.id,
        domain="sums",
        model="ann",
        sample=sample,
        reasoning=reasoning,
        answer=f"The answer is \\boxed{{{of.gold}}}. I hope this helps!",
        finish_reason="stop",
        prompt_tokens=5,
        completion_tokens=30,
        seconds=0.1,
        request=f"key-{of.id}-{sample}",
        fingerprint=None,
        error=None,
    )


def scripted_run(path: Path, recipe: dict[str, Any] = RECIPE) -> Run:
    """Return a run in which ann's first trace of each problem has a wrong sum, its second none.

    All are right. Jo grades the first of them low, so they are dropped; rae refines the others,
    mostly badly.
    """
    parsed = parse_recipe({**recipe, "ledger": str(path / "ledger.sqlite")}, where="the test")
    run = Run(path / "run", parsed)
    run.path.mkdir(parents=True)
    (run.path / "recipe.yaml").write_text(dump_recipe(parsed), encoding="utf-8")
    found = problems(12)
    write_rows(run.problems("sums"), found, Problem)
    write_rows(run.dropped("problems", "sums"), [], Dropped)
    traces, verdicts = [], []
    for one in found:
        muse = f"{MUSING}\nI add what the question gives. {HOSTILE}\n{MUSING}\n"
        pair = [
            _trace(one, 0, f"{muse}As 2 + 2 = 5, it makes {one.gold}."),
            _trace(one, 1, f"{muse}{MUSING}\nAs 2 + 2 = 4, it makes {one.gold}."),
        ]
        traces += pair
        verdicts += [
            Verdict(t.id, one.id, "sums", "correct", "equal", one.gold, one.gold, None, "x", 0.0)
            for t in pair
        ]
    write_rows(run.traces("sums", "ann"), traces, Trace)
    write_rows(run.verdicts("sums"), verdicts, Verdict)
    with ExitStack() as resources:
        execute(run, stage_tasks(run, "verify", resources)[1])
        for task in stage_tasks(run, "select", resources):
            execute(run, task)
    return run


def plain(run: Run) -> Run:
    """Return the same folder under a recipe that neither grades nor refines."""
    data = run.recipe.model_dump(mode="json")
    sums = data["domains"]["sums"]
    del sums["rubric"], sums["refine"], sums["select"]["rubric_min"]
    return dataclasses.replace(run, recipe=parse_recipe(data, where="the test"))
