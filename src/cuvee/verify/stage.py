"""The stage `verify`: the traces of all teachers of a domain in, the domain's verdicts out.

One task a domain, `verify/<domain>`; its counts are by verdict and by reason. Where a
teacher judges, its own traces are written too (`03_verdicts/judge/<domain>.parquet`); their
`problem_id` is the trace that was judged. Not here: what a verdict means
(`cuvee.verify.check`).
"""

import contextlib
import dataclasses
import functools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from cuvee.progress import bar, say
from cuvee.records import (
    Problem,
    Trace,
    Verdict,
    count_rows,
    iter_rows,
    iter_values,
    read_rows,
    write_rows,
)
from cuvee.runfolder import Run, Task
from cuvee.verify.check import check_traces
from cuvee.verify.clustered import check_pairs_on_ray, opened
from cuvee.verify.judge import Judge, Question

NO_JUDGES: Mapping[str, Judge] = MappingProxyType({})


def tasks(
    run: Run, resources: contextlib.ExitStack, judges: Mapping[str, Judge] = NO_JUDGES
) -> list[Task]:
    """Return the tasks of the stage; `judges` are by domain.

    `resources` closes the Ray cluster that the first of them opens, with `workers: ray`.
    """
    connect = functools.cache(functools.partial(_connect, run, resources))
    return [_task(run, domain, judges.get(domain), connect) for domain in run.recipe.domains]


def _connect(run: Run, resources: contextlib.ExitStack) -> None:
    """Open the cluster and check its nodes."""
    recipe = run.recipe
    programs = any(domain.verifier == "code" for domain in recipe.domains.values())
    resources.enter_context(opened(recipe.address, sandbox=recipe.sandbox if programs else None))


def judge_traces(run: Run, domain: str) -> Path:
    """Return the file of a judge's own traces in a domain."""
    return run.folder("verify") / "judge" / f"{domain}.parquet"


def _task(run: Run, domain: str, judge: Judge | None, connect: Callable[[], None]) -> Task:
    recipe = run.recipe
    traces = [run.traces(domain, teacher.name) for teacher in recipe.teachers_of(domain)]
    outputs = [run.verdicts(domain)]
    if judge is not None:
        outputs.append(judge_traces(run, domain))

    def work() -> Mapping[str, Any]:
        if recipe.workers == "ray" and judge is None:
            connect()
            return _check_on_ray(run, domain, traces)
        if recipe.workers == "ray":
            say(f"verify {domain}: a teacher judges, so this domain is checked on this machine")
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


def _check_on_ray(run: Run, domain: str, traces: Sequence[Path]) -> Mapping[str, Any]:
    """Check a domain's traces on the cluster, a chunk at a time; return the counts."""
    problems = {p.id: _slim(p) for p in iter_rows(run.problems(domain), Problem)}
    names = [f.name for f in dataclasses.fields(Trace) if f.name != "reasoning"]
    pairs = (
        (trace, problems.get(trace.problem_id))
        for path in traces
        for values in iter_values(path, names)
        for trace in [Trace(reasoning="", **values)]
    )
    counted: Counter[tuple[str, str]] = Counter()
    total = sum(count_rows(path) for path in traces)
    with bar(f"verify {domain}", total=total, unit="answers") as tick:
        verdicts = check_pairs_on_ray(
            pairs, limits=run.recipe.verify, sandbox=run.recipe.sandbox, tick=tick
        )
        write_rows(run.verdicts(domain), _counting(verdicts, counted), Verdict)
    return _counts(counted)


def _slim(problem: Problem) -> Problem:
    """Return a problem without what only a judge reads: it goes along with every chunk."""
    return dataclasses.replace(problem, question="", prompt="", meta="{}")


def _counting(verdicts: Iterable[Verdict], counted: Counter[tuple[str, str]]) -> Iterator[Verdict]:
    for verdict in verdicts:
        counted[str(verdict.verdict), verdict.reason] += 1
        yield verdict


def _keeping(judge: Judge, kept: list[Trace]) -> Judge:
    """Return the judge with its traces put into `kept` as they come."""

    def ask(questions: Sequence[Question]) -> list[Trace]:
        traces = judge.ask(questions)
        kept.extend(traces)
        return traces

    return dataclasses.replace(judge, ask=ask)


def count(verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """Return how many verdicts there are: in all, of each kind, and for each reason."""
    return _counts(Counter((str(v.verdict), v.reason) for v in verdicts))


def _counts(counted: Mapping[tuple[str, str], int]) -> dict[str, Any]:
    kinds: Counter[str] = Counter()
    for (verdict, _), rows in counted.items():
        kinds[verdict] += rows
    reasons = {f"{verdict}: {reason}": rows for (verdict, reason), rows in counted.items()}
    named = {name: kinds[name] for name in ("correct", "wrong", "no_answer", "not_checked")}
    return {"traces": kinds.total(), **named, "reasons": dict(sorted(reasons.items()))}
