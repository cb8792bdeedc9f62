"""The stage `verify`: the traces of all teachers of a domain in, the domain's verdicts out.

One task a domain, `verify/<domain>`; its counts are by verdict and by reason. Where a
teacher judges, its own traces are written too (`03_verdicts/judge/<domain>.parquet`); their
`problem_id` is the trace that was judged. Not here: what a verdict means
(`cuvee.verify.check`).
"""

import contextlib
import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from cuvee.records import Problem, Trace, Verdict, read_rows, write_rows
from cuvee.runfolder import Run, Task
from cuvee.verify.check import check_traces
from cuvee.verify.judge import Judge, Question

NO_JUDGES: Mapping[str, Judge] = MappingProxyType({})


def tasks(
    run: Run, resources: contextlib.ExitStack, judges: Mapping[str, Judge] = NO_JUDGES
) -> list[Task]:
    """Return the tasks of the stage; `resources` is not needed, `judges` are by domain."""
    return [_task(run, domain, judges.get(domain)) for domain in run.recipe.domains]


def judge_traces(run: Run, domain: str) -> Path:
    """Return the file of a judge's own traces in a domain."""
    return run.folder("verify") / "judge" / f"{domain}.parquet"


def _task(run: Run, domain: str, judge: Judge | None) -> Task:
    recipe = run.recipe
    traces = [run.traces(domain, teacher.name) for teacher in recipe.teachers_of(domain)]
    outputs = [run.verdicts(domain)]
    if judge is not None:
        outputs.append(judge_traces(run, domain))

    def work() -> Mapping[str, Any]:
        kept: list[Trace] = []
        problems = {p.id: p for p in read_rows(run.problems(domain), Problem)}
        rows = [trace for path in traces for trace in read_rows(path, Trace)]
        verdicts = check_traces(
            rows,
            problems,
            limits=recipe.verify,
            sandbox=recipe.sandbox,
            label=f"verify {domain}",
            judge=None if judge is None else _keeping(judge, kept),
        )
        if judge is not None:
            write_rows(judge_traces(run, domain), kept, Trace)
        write_rows(run.verdicts(domain), verdicts, Verdict)
        return count(verdicts)

    return Task(
        stage="verify",
        name=domain,
        inputs=(run.problems(domain), *traces),
        outputs=tuple(outputs),
        settings={
            "verifier": recipe.domains[domain].verifier,
            "sandbox": recipe.sandbox,
            "limits": recipe.verify.model_dump(mode="json", exclude={"processes"}),
            **({} if judge is None else {"judge": dict(judge.settings)}),
        },
        work=work,
    )


def _keeping(judge: Judge, kept: list[Trace]) -> Judge:
    """Return the judge with its traces put into `kept` as they come."""

    def ask(questions: Sequence[Question]) -> list[Trace]:
        traces = judge.ask(questions)
        kept.extend(traces)
        return traces

    return dataclasses.replace(judge, ask=ask)


def count(verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """Return how many verdicts there are: in all, of each kind, and for each reason."""
    kinds = Counter(v.verdict for v in verdicts)
    reasons = Counter(f"{v.verdict}: {v.reason}" for v in verdicts)
    named = {name: kinds[name] for name in ("correct", "wrong", "no_answer", "not_checked")}
    return {"traces": len(verdicts), **named, "reasons": dict(sorted(reasons.items()))}
